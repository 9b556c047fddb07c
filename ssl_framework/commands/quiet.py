"""What Lightning says on a terminal that is no news to a user; for the command line only, importing changes nothing."""

import logging
import warnings

# message, and why it is no news
_KNOWN = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 under torch 2.14: nothing a user can do
    r"You have overridden `on_before_batch_transfer` in `LightningModule`",  # views belong to the module, by design
    r"The '\w+' does not have many workers",  # data in memory is read fastest without workers
    r"Found \d+ module\(s\) in eval mode at the start of training",  # a frozen encoder evaluates while its head learns
    r"Checkpoint directory .* exists and is not empty",  # a resumed run
    r"torch.distributed.nn.functional.all_gather is deprecated",  # Lightning 2.6 under torch 2.14
    r"The `srun` command is available on your system but is not used",  # one process was asked for
)


def quiet() -> None:
    """Hide Lightning's tips and the warnings that are known to be harmless."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _KNOWN:
        warnings.filterwarnings("ignore", message=message)
