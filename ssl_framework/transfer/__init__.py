"""Does transfer pay? What may be said of the rows of a study."""

from ssl_framework.transfer import claims

__all__ = ["claims"]
