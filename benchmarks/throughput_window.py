"""The side of a contestant: it trains without end, and stands still between the windows that are timed.

Needs the standard library only, so that it works in the environment of any contestant.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


class Windows:
    """Steps when it is told to, over two pipes, and says how long they took.

    An order is a line ``{"steps": N}``; the answer is a line ``{"seconds": S, "loss": L, ...}``, after N calls of `step`.

    Args:
        orders: file descriptor that orders are read from; its end ends the process.
        replies: file descriptor that answers are written to.
        wait: called before a clock is read: waits for the device.
    """

    def __init__(self, orders: int, replies: int, wait: Callable[[], None] = lambda: None) -> None:
        self._orders = os.fdopen(orders, "r")
        self._replies = os.fdopen(replies, "w")
        self._wait = wait
        self._left = 0
        self._began = 0.0

    def begin(self, **facts: Any) -> None:
        """Say that everything is built, with facts for the record, and wait for the first window."""
        self._say(facts)
        self._next()

    def step(self, loss: Any, **facts: Any) -> None:
        """A training step is done.

        Args:
            loss: a scalar; it is looked at when the window ends, not before.
            facts: more of the answer, if this step ends the window.
        """
        self._left -= 1
        if self._left > 0:
            return
        self._wait()
        seconds = time.perf_counter() - self._began
        self._say({"seconds": seconds, "loss": float(loss), **facts})
        self._next()

    def _say(self, answer: dict[str, Any]) -> None:
        try:
            self._replies.write(json.dumps(answer) + "\n")
            self._replies.flush()
        except BrokenPipeError:
            os._exit(0)  # nobody listens: the race was killed

    def _next(self) -> None:
        line = self._orders.readline()
        if not line:
            os._exit(0)  # nothing of this training is wanted any more, and loaders end with their parent
        self._left = json.loads(line)["steps"]
        self._began = time.perf_counter()


def claim_pipes() -> tuple[int, int]:
    """Standard input and output for orders and answers alone: what libraries print goes to standard error.

    Returns:
        File descriptors for `Windows`.
    """
    orders, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return orders, replies


def specification() -> dict[str, Any]:
    """What the process was started to train: the JSON of its first argument."""
    return json.loads(sys.argv[1])
