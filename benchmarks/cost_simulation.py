"""A pipeline of stages with bounded queues, simulated batch by batch: what comes out a second, and which stage limits it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Stage(NamedTuple):
    """A place that batches pass in order.

    Attributes:
        name: for people.
        seconds: that one server takes for a batch, on average.
        servers: batches that it works on at once.
        queue: batches that may wait in front of it; the stage before is blocked when they do.
        members: devices that do the same and wait for the slowest.
    """

    name: str
    seconds: float
    servers: int = 1
    queue: int = 2
    members: int = 1


class Flow(NamedTuple):
    """What a simulation gave.

    Attributes:
        seconds: between two batches at the end of the pipeline, once it is full.
        limit: name of the busiest stage.
        busy: share of the time that the servers of each stage work.
        start: ``(stages, batches)`` when work began.
        leave: ``(stages, batches)`` when the batch went on to the next stage.
    """

    seconds: float
    limit: str
    busy: dict[str, float]
    start: NDArray[np.float64]
    leave: NDArray[np.float64]


def simulate(stages: Sequence[Stage], batches: int = 600, jitter: float = 0.1, seed: int = 0) -> Flow:
    """Send batches through the stages.

    Times are log-normal about their mean. Batches keep their order. Where several devices wait for each other, a time is the
    longest of theirs.

    Args:
        stages: in the order of the flow.
        batches: that are sent; the first quarter fills the pipeline and is not counted.
        jitter: standard deviation of a time as a share of it.
        seed: of the jitter.

    Raises:
        ValueError: there is no stage, or a number is out of range.
    """
    _check(stages, batches, jitter)
    random = np.random.default_rng(seed)
    times = np.stack([_times(stage, batches, jitter, random) for stage in stages])
    start, leave = np.zeros_like(times), np.zeros_like(times)
    for i in range(batches):
        for k, stage in enumerate(stages):
            arrived = leave[k - 1, i] if k else 0.0
            free = leave[k, i - stage.servers] if i >= stage.servers else 0.0
            in_order = start[k, i - 1] if i else 0.0
            start[k, i] = max(arrived, free, in_order)
            leave[k, i] = max(start[k, i] + times[k, i], leave[k, i - 1] if i else 0.0)
            if k + 1 < len(stages) and i >= stages[k + 1].queue:
                # it may go when the batch that many places ahead is out of the queue
                leave[k, i] = max(leave[k, i], start[k + 1, i - stages[k + 1].queue])
    first = batches // 4
    span = leave[-1, -1] - leave[-1, first]
    busy = {
        stage.name: float(times[k, first + 1 :].sum() / (stage.servers * span)) if span > 0 else 0.0
        for k, stage in enumerate(stages)
    }
    return Flow(float(span / (batches - 1 - first)), max(busy, key=lambda name: busy[name]), busy, start, leave)


def _times(stage: Stage, batches: int, jitter: float, random: np.random.Generator) -> NDArray[np.float64]:
    sigma = math.sqrt(math.log(1 + jitter**2))
    drawn = random.lognormal(-(sigma**2) / 2, sigma, (batches, stage.members))  # mean 1
    return stage.seconds * drawn.max(axis=1)


def _check(stages: Sequence[Stage], batches: int, jitter: float) -> None:
    if not stages:
        raise ValueError("no stages: a pipeline has at least one.")
    for stage in stages:
        if not 0 <= stage.seconds < math.inf or min(stage.servers, stage.queue, stage.members) < 1:
            raise ValueError(f"{stage}: give seconds from 0 up, and at least one server, one place to wait and one member.")
    if len({stage.name for stage in stages}) < len(stages):
        raise ValueError(f"two stages share a name: {[stage.name for stage in stages]}.")
    if batches < 8 or not 0 <= jitter < 1:
        raise ValueError(f"batches={batches}, jitter={jitter}: send at least 8, with a share in [0, 1).")
