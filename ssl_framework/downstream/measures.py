"""Loss and metrics of a labelled split, over all processes."""

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from ssl_framework.downstream.tasks import Task


class Measures(nn.ModuleDict):
    """The loss and the metrics of a task: gathered batch by batch, every sample once.

    Args:
        task: it says what is measured.
    """

    def __init__(self, task: Task) -> None:
        super().__init__({"loss": MeanMetric(nan_strategy="error"), **task.metrics()})
        self._task = task

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in ``(B, ...)`` outputs of the head and their targets; B may be 0."""
        if len(targets) == 0:
            return
        for name, metric in self.items():
            assert isinstance(metric, Metric)
            if name == "loss":
                metric.update(self._task.loss(outputs, targets), weight=len(targets))
            else:
                metric.update(*self._task.readout(outputs, targets))

    def found(self) -> dict[str, Tensor]:
        """Values over all processes; afterwards everything is empty again."""
        values: dict[str, Tensor] = {}
        for name, metric in self.items():
            assert isinstance(metric, Metric)
            values[name] = metric.compute()
            metric.reset()
        return values
