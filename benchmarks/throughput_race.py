"""Contestants in processes of their own, one at work while the others stand still."""

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_LOOK = 0.05  # seconds between two looks at a contestant's memory
_SHORT = 0.6  # of the seconds asked for: a shorter window says too little about the length of the next


class Racer:
    """A contestant's process and the processes that it starts: stopped, unless it is told to step.

    Stopping (SIGSTOP) freezes loader workers, too, with what they have read ahead: a contestant neither works in the others'
    time nor finds its queue fuller than it left it.

    Args:
        name: in messages.
        python: interpreter.
        script: file of this folder.
        spec: what to train.
        folder: where it may write; its output goes to ``log.txt``.

    Raises:
        ChildProcessError: it ended before it was ready; the message has its last words.
    """

    def __init__(self, name: str, python: str, script: str, spec: dict[str, Any], folder: Path) -> None:
        self.name = name
        self.peak = 0
        self._log = folder / "log.txt"
        folder.mkdir(parents=True)
        with self._log.open("wb") as log:
            # a group of its own, so that it can be stopped with its workers; of our session, so that the system ends it with us
            self._process = subprocess.Popen(
                [python, str(_HERE / script), json.dumps(spec)],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,
            )
        try:
            self.facts = self._answer()
            self.peak = 0  # of the windows alone: what it took to get ready is given back, or shows in them
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def window(self, steps: int) -> dict[str, Any]:
        """Train some steps.

        Args:
            steps: how many.

        Returns:
            ``seconds``, ``loss``.
        """
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"steps": steps}).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        """End it, and its workers."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _answer(self) -> dict[str, Any]:
        """The next line that it writes; its memory is watched meanwhile."""
        pipe = self._process.stdout
        assert pipe is not None
        while not select.select([pipe], [], [], _LOOK)[0]:
            self.peak = max(self.peak, anonymous_memory(self._process.pid))
        line = pipe.readline()
        if not line:
            self._process.wait()
            last = self._log.read_text(errors="replace").splitlines()[-25:]
            raise ChildProcessError("\n".join([f"{self.name} ended ({self._process.returncode}). Its last words:", *last]))
        return json.loads(line)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def anonymous_memory(process: int) -> int:
    """Bytes of a process that are in memory and belong to no file (RssAnon); 0 on systems that do not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def steps_of(racer: Racer, seconds: float) -> int:
    """Steps of a window that takes about `seconds`, found by windows that grow: its warm-up.

    The first step compiles and allocates, and the first windows empty what loaders have read ahead.
    """
    racer.window(1)
    steps = 1
    while True:
        took = racer.window(steps)["seconds"]
        fitting = max(1, round(steps * seconds / took))
        if took >= _SHORT * seconds or fitting <= steps:
            return fitting
        steps = min(fitting, 8 * steps)


def race(racers: Sequence[Racer], steps: dict[str, int], rounds: int) -> list[dict[str, dict[str, Any]]]:
    """Windows of all racers in turn; each round begins with another one.

    Args:
        racers: who.
        steps: of a window, by name.
        rounds: how many windows each has.

    Returns:
        For each round, the answer of each racer by name.
    """
    answers: list[dict[str, dict[str, Any]]] = []
    for number in range(rounds):
        first = number % len(racers)
        order = [*racers[first:], *racers[:first]]
        answers.append({racer.name: racer.window(steps[racer.name]) for racer in order})
    return answers
