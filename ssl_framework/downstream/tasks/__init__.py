"""What phase 2 learns from labels."""

from collections.abc import Mapping
from typing import Any

from ssl_framework.downstream.tasks.base import Prediction, Task
from ssl_framework.downstream.tasks.classes import Classification, MultiLabel
from ssl_framework.downstream.tasks.numbers import Ordinal, Regression
from ssl_framework.downstream.tasks.pixels import Segmentation
from ssl_framework.downstream.tasks.search import Neighbours, Retrieval, Verification
from ssl_framework.downstream.tasks.several import Several

__all__ = [
    "Classification",
    "MultiLabel",
    "Neighbours",
    "Ordinal",
    "Prediction",
    "Regression",
    "Retrieval",
    "Segmentation",
    "Several",
    "Task",
    "Verification",
    "restored",
    "several",
]

_KINDS: dict[str, type[Task]] = {
    "classification": Classification,
    "multi_label": MultiLabel,
    "neighbours": Neighbours,
    "ordinal": Ordinal,
    "regression": Regression,
    "retrieval": Retrieval,
    "segmentation": Segmentation,
    "verification": Verification,
}


def restored(state: Mapping[str, Any]) -> Task:
    """The task that said this of itself, `Task.state`.

    Raises:
        ValueError: it is none of ours, or has other numbers.
    """
    numbers = dict(state)
    if numbers.get("kind") == "several":
        return several(numbers["tasks"], numbers.get("weights"))
    kind = _KINDS.get(str(numbers.pop("kind", None)))
    if kind is None:
        raise ValueError(f"the task {state.get('kind')!r} is not one of {', '.join(_KINDS)}: it was saved by another version.")
    try:
        return kind(**numbers)
    except TypeError as error:
        raise ValueError(f"the task {state['kind']} was saved with other numbers ({error}): by another version.") from error


def several(tasks: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> Several:
    """Several tasks, each as its ``kind`` and its numbers: ``{"kind": "regression", "columns": ["ink"]}``.

    Raises:
        ValueError: a kind that there is not, or numbers that it does not take.
    """
    made: dict[str, Task] = {}
    for name, state in tasks.items():
        if not isinstance(state, Mapping) or "kind" not in state:
            raise ValueError(f"task.tasks.{name}={state}: give a kind, and what it needs, such as {{kind: classification}}.")
        made[name] = restored(state)
    return Several(tasks=made, weights=dict(weights or {}))
