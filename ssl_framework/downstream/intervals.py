"""How far metrics on a test set would move with another test set of its kind: the bootstrap over samples."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ssl_framework import keyed

_STREAM = 0xB007  # names this use of the seed


def _alone() -> bool:
    return False


class Readouts(Metric):
    """Keeps what metrics are made of, sample by sample, of all processes."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("outputs", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, outputs: Tensor, targets: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (Metric.update takes anything)
        """Rows ``(B, ...)`` as `Task.readout` returns them."""
        self.outputs: Any
        self.targets: Any
        self.outputs.append(outputs.detach())
        self.targets.append(targets.detach())

    def compute(self) -> tuple[Tensor, Tensor]:
        """``(N, ...)`` both, on the CPU."""
        return dim_zero_cat(self.outputs).cpu(), dim_zero_cat(self.targets).cpu()


def bootstrap(
    metrics: Callable[[], dict[str, Metric]], outputs: Tensor, targets: Tensor, *, seed: int, draws: int = 400
) -> dict[str, list[float]]:
    """95 % percentile intervals: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.

    They say what another test set would change, and nothing of another training.

    Args:
        metrics: makes new metrics.
        outputs: ``(N, ...)``, as the metrics take them.
        targets: ``(N, ...)``.
        seed: of the draws.
        draws: of N samples each, with replacement.

    Returns:
        ``[low, high]`` of each metric.
    """
    generator = torch.Generator().manual_seed(keyed.mix_numbers(seed, _STREAM))
    fresh = metrics()
    for part in (inner for metric in fresh.values() for inner in metric.modules() if isinstance(inner, Metric)):
        part.distributed_available_fn = _alone  # every process has all samples already, and on the CPU
    values: dict[str, list[float]] = {name: [] for name in fresh}
    for _ in range(draws):
        rows = torch.randint(len(targets), (len(targets),), generator=generator)
        for name, metric in fresh.items():
            metric.update(outputs[rows], targets[rows])
            values[name].append(float(metric.compute()))
            metric.reset()
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return {name: torch.tensor(found, dtype=torch.float64).nanquantile(ends).tolist() for name, found in values.items()}
