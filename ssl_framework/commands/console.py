"""What a command says; one process of several speaks."""

from pytorch_lightning.utilities import rank_zero_only


@rank_zero_only
def say(*lines: str) -> None:
    """Print lines."""
    print("\n".join(lines), flush=True)


def is_first() -> bool:
    """Whether this is the process that speaks and writes."""
    return getattr(rank_zero_only, "rank", 0) == 0
