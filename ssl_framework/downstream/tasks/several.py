"""Several tasks on one encoder at once: one forward pass, a head for each."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.wrappers.abstract import WrapperMetric

from ssl_framework.data import Labelled
from ssl_framework.downstream.tasks.base import Prediction, Task
from ssl_framework.types import Encoding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Several(Task):
    """The weighted sum of the losses of tasks; metrics are those of each, as ``NAME/METRIC``.

    Caruana, 1997, https://doi.org/10.1023/A:1007379606734

    Args:
        tasks: by name; none of them labels pixels, and each has something to learn.
        weights: of their losses, by name; 1 where none is given. A loss of standardised numbers is near 1 at the start, and one
            of C classes near log(C).
    """

    tasks: Mapping[str, Task]
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.tasks) < 2:
            raise ValueError(f"task.tasks has {list(self.tasks)}: give two tasks or more, each with a name.")
        odd = [name for name, task in self.tasks.items() if task.on_tokens or not task.trains or isinstance(task, Several)]
        if odd:
            raise ValueError(f"task.tasks: {', '.join(odd)} cannot be learnt beside others: take it alone.")
        unknown = sorted(set(self.weights) - set(self.tasks))
        if unknown or any(not weight > 0 for weight in self.weights.values()):
            raise ValueError(f"task.weights={dict(self.weights)}: give positive numbers for names among {list(self.tasks)}.")

    def targets(self, split: Labelled) -> Tensor:
        """``(N, K)`` float64, the targets of all tasks beside each other; whole numbers up to 2^53 are exact."""
        return torch.cat([_columns(task.targets(split)) for task in self.tasks.values()], dim=1)

    def prepared(self, targets: Tensor) -> Self:
        """With what each takes from its own."""
        parts = self._split(targets)
        tasks = {name: task.prepared(part) for (name, task), part in zip(self.tasks.items(), parts, strict=True)}
        return dataclasses.replace(self, tasks=tasks)

    def check(self, targets: Tensor) -> None:
        """Each looks at its own."""
        for task, part in zip(self.tasks.values(), self._split(targets), strict=True):
            task.check(part)

    def head(self, embed_dim: int) -> nn.Module:
        """One for each."""
        return Heads({name: task.head(embed_dim) for name, task in self.tasks.items()})

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The weighted sum."""
        terms = [
            self.weights.get(name, 1.0) * task.loss(output, target)
            for name, task, output, target in self._parts(outputs, targets)
        ]
        return torch.stack(terms).sum()

    def metrics(self) -> dict[str, Metric]:
        """Of each."""
        return {
            f"{name}/{metric}": _Part(self, name, inner)
            for name, task in self.tasks.items()
            for metric, inner in task.metrics().items()
        }

    def readout(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """As they are; each metric takes its own."""
        return outputs, targets

    def badness(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The weighted sum of each task's."""
        parts = [
            self.weights.get(name, 1.0) * task.badness(output, target)
            for name, task, output, target in self._parts(outputs, targets)
        ]
        return torch.stack(parts).sum(dim=0)

    def predicted(self, outputs: Tensor) -> Prediction:
        """The outputs ``(N, K)`` of all heads; `as_table` says what they mean."""
        return Prediction(outputs)

    def as_table(self, prediction: Prediction, classes: Sequence[str] | None) -> dict[str, list[Any]]:
        """The columns of each, as ``NAME/COLUMN``."""
        widths = [task.num_outputs for task in self.tasks.values()]
        parts = zip(self.tasks.items(), prediction.value.split(widths, dim=1), strict=True)
        return {
            f"{name}/{column}": values
            for (name, task), part in parts
            for column, values in task.as_table(task.predicted(part), classes).items()
        }

    @property
    def num_outputs(self) -> int:
        """Of all."""
        return sum(task.num_outputs for task in self.tasks.values())

    @property
    def num_targets(self) -> int:
        """Of all."""
        return sum(task.num_targets for task in self.tasks.values())

    def state(self) -> dict[str, Any]:
        """The state of each, and the weights."""
        states = {name: task.state() for name, task in self.tasks.items()}
        return {"kind": self.kind, "tasks": states, "weights": dict(self.weights)}

    def _split(self, targets: Tensor) -> list[Tensor]:
        """The targets of each, as it knows them."""
        parts = targets.split([task.num_targets for task in self.tasks.values()], dim=1)
        return [
            part[:, 0].long() if task.whole_targets else part.float()
            for task, part in zip(self.tasks.values(), parts, strict=True)
        ]

    def _parts(self, outputs: Tensor, targets: Tensor) -> Iterator[tuple[str, Task, Tensor, Tensor]]:
        """Name, task, outputs and targets of each."""
        each = outputs.split([task.num_outputs for task in self.tasks.values()], dim=1)
        for (name, task), output, target in zip(self.tasks.items(), each, self._split(targets), strict=True):
            yield name, task, output, target

    def of(self, name: str, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What the metrics of one task take."""
        return next(task.readout(o, t) for own, task, o, t in self._parts(outputs, targets) if own == name)


class Heads(nn.Module):
    """Several heads on one encoding.

    Args:
        heads: by name.
    """

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({f"of_{name}": head for name, head in heads.items()})  # a task may be called "type"

    def forward(self, encoding: Encoding) -> Tensor:
        """Outputs ``(B, K)`` of all, beside each other."""
        return torch.cat([head(encoding).float() for head in self.heads.values()], dim=1)


class _Part(WrapperMetric):
    """A metric of one task, which takes its own part of outputs and targets."""

    def __init__(self, several: Several, name: str, inner: Metric) -> None:
        super().__init__()
        self.several, self.task_name, self.inner = several, name, inner

    def update(self, outputs: Tensor, targets: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (Metric.update takes anything)
        """``(B, K)`` both."""
        self.inner.update(*self.several.of(self.task_name, outputs, targets))

    def compute(self) -> Tensor:
        """Of the inner one, over all processes."""
        return cast(Tensor, self.inner.compute())

    def reset(self) -> None:
        """Forget."""
        super().reset()
        self.inner.reset()


def _columns(targets: Tensor) -> Tensor:
    return targets.double() if targets.ndim == 2 else targets.double()[:, None]
