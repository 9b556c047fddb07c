"""How Lightning writes and reads a checkpoint file here."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from ssl_framework.checkpoint.files import replacing
from ssl_framework.encoders.weights import read_plain


class WholeFiles(CheckpointIO):
    """Writes a file beside its place, syncs and renames it; reads tensors and plain containers alone.

    Lightning's own goes by way of ``$TMPDIR``, which may be another disk: killed there, it leaves half a file (2 of 25 kills).

    Attributes:
        failure: why the last save failed, on the process that writes; None if it did not. It is not raised there: the other
            processes would wait for one that is gone.
    """

    def __init__(self) -> None:
        self.failure: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a file, or note why it could not be written; what stood in its place is as it was then."""
        del storage_options
        target, self.failure = Path(path), None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as file:
                torch.save(checkpoint, file)
        except OSError as error:
            self.failure = error
        except RuntimeError as error:  # torch's writer turns a full disk into one
            self.failure = _of_the_disk(error)
            if self.failure is None:
                raise

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a file; nothing in it runs, whatever is asked for.

        Raises:
            ValueError: it is damaged, or holds more than tensors and plain containers.
        """
        del map_location, weights_only
        return read_plain(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a file."""
        Path(path).unlink(missing_ok=True)


def _of_the_disk(error: RuntimeError) -> OSError | None:
    """The failed write below torch's zip writer."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    cut_short = "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error)
    return OSError("its file could not be written to the end, as on a full disk or beyond a quota") if cut_short else None
