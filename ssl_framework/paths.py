"""Where the package keeps what is not code. Light, so that help and error messages need not import torch."""

from pathlib import Path


def conf_dir() -> Path:
    """The folder of the configuration files: inside the installed package, or beside it in a checkout.

    Raises:
        FileNotFoundError: neither is there.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "pretrain.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"No configuration files in {package / 'conf'} or {package.parent / 'conf'}: install the package again."
    )


def printable(name: object) -> str:
    """A file's name, or a text with one, that can be printed and written as UTF-8: a byte that is none shows as its number."""
    return str(name).encode("utf-8", "backslashreplace").decode()
