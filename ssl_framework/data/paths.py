"""Where data lies: the errors of a path that is not given, not there, or empty."""

from pathlib import Path


def data_path(path: str | Path | None, what: str) -> Path:
    """The path as the user gave it.

    Args:
        path: None, or one below a data root that is not set (``None/cifar10``: how an unset ``data_root`` reads), is refused.
        what: what should be there, for the message.

    Raises:
        ValueError: no path.
    """
    if path is None or str(path) in {"", "None"} or str(path).startswith("None/"):
        raise ValueError(
            f"No path to {what}: give data.path=FOLDER, or set the environment variable SSL_FRAMEWORK_DATA to the folder that "
            "your data sets lie in."
        )
    return Path(path).expanduser()


def existing(path: str | Path | None, what: str) -> Path:
    """Like `data_path`, and something is there.

    Raises:
        ValueError: no path.
        FileNotFoundError: nothing is there.
    """
    found = data_path(path, what)
    if not found.exists():
        raise FileNotFoundError(f"There is no {what} at {found.absolute()}: check data.path.")
    return found
