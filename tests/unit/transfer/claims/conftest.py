from hypothesis import settings

# A busy machine is no failure, and the same examples come each time.
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")
