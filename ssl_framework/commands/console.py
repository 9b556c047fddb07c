"""What a command says; one process of several speaks."""

from pytorch_lightning.utilities import rank_zero_only

from ssl_framework.paths import printable


@rank_zero_only
def say(*lines: str) -> None:
    """Print lines; no lines, nothing."""
    if lines:
        print(printable("\n".join(lines)), flush=True)


def is_first() -> bool:
    """Whether this is the process that speaks and writes."""
    return getattr(rank_zero_only, "rank", 0) == 0
