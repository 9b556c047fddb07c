"""Which errors are a user's mistake, and the sentence that they are told in."""

import traceback
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

_PACKAGE = Path(__file__).resolve().parents[1]
_LONGEST = 20_000  # letters of a message


class StoppedError(Exception):
    """A signal, such as that of Ctrl-C. The message says what was kept and how to go on.

    Attributes:
        code: that the program leaves with.
    """

    def __init__(self, message: str, code: int = 130) -> None:
        super().__init__(message)
        self.code = code


class FoundError(Exception):
    """A check has done its work, and found what must be mended. The message says what, and where it is listed.

    Attributes:
        code: that the program leaves with.
    """

    code = 1


def sentence(error: BaseException) -> str | None:
    """The message for a mistake of the user's; None for a fault of the program's, whose traceback is wanted.

    A mistake is a `ValueError` that our own code raised, a path that is not there, a disk that is full, a Trainer's setting
    that this machine has not, a constructor's argument that does not exist, numbers that stopped being finite, processes that
    drifted apart; also where it comes wrapped by Hydra.
    """
    while isinstance(error, HydraException) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or 'cannot be opened').lower()}."
    if type(error).__name__ in (
        "MisconfigurationException",
        "NonFiniteError",
        "RanksDisagreeError",
    ):  # not imported, because that takes seconds
        return str(error).strip()
    if isinstance(error, OmegaConfBaseException | HydraException):
        return str(error).strip().split("\n")[0]
    if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
        return str(error)
    if isinstance(error, (ValueError, OSError)) and _ours(error):
        return str(error).strip()
    return _from_worker(str(error).strip().splitlines()) if isinstance(error, ValueError) else None


def printable(message: str) -> str:
    """A message that no terminal obeys, whatever names a file put into it, and of a length that can be read."""
    shown = "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in message)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} ..."


def _from_worker(told: list[str]) -> str | None:
    """The message of a mistake that a loader's worker found: torch hands it over as text, with the worker's traceback."""
    frames = [line for line in told if line.lstrip().startswith('File "')]
    ours = bool(frames) and f"{_PACKAGE.name}/" in frames[-1]
    if not told or not told[0].startswith("Caught ValueError in DataLoader worker") or not ours:
        return None
    return told[-1].removeprefix("ValueError: ")


def _ours(error: BaseException) -> bool:
    """Whether the line that raised stands in this package."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _PACKAGE in Path(frames[-1].filename).resolve().parents
