"""What guards and monitors cost: a ResNet-18 on 32 px with all of them, with the guards alone, and with neither, in turns.

    python benchmarks/guards.py --rounds 9 --out benchmarks/guards.json
    python benchmarks/guards.py --device cuda --rounds 15 --out benchmarks/guards.json
    python benchmarks/guards.py --report   # the table of docs/explanation/performance.md

A window has every look that falls into so many steps, so the cost is that of a long run: 200 steps on a GPU, 50 on a CPU, where
more would take hours. Monitors that would look less often look once in a window. Those that encode labelled images take as many
fewer: the same work a step. The others do all their work in a shorter window, which is more than by default.

Within a window contestants take turns of a few steps, so that what slows the machine for a minute slows all of them. Beside the
race a clock runs in the hooks of all callbacks: on a CPU, where nothing works behind the host's back, it counts what they take
without the noise of the rest of the step, but not what they do to it, such as emptying caches.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine_record
import marked
import throughput_stats
import yaml
from throughput_race import Racer, race

LIMIT = 0.02
"""Share of a step that all of it may cost."""

HERE = Path(__file__).resolve().parent
MONITORS = HERE.parent / "conf" / "monitors" / "default.yaml"
RESULTS, PAGE = HERE / "guards.json", HERE.parent / "docs" / "explanation" / "performance.md"
CONTESTANTS = {"on": (True, "default"), "guards": (True, "none"), "off": (False, "none")}
STEPS = {"cpu": 50, "cuda": 200}
TURNS = 10
"""Of a window."""


def looks(steps: int) -> list[str]:
    """Words by which each monitor looks in a window of so many steps; those that encode images do their share of the work."""
    monitors: dict[str, dict[str, Any]] = yaml.safe_load(MONITORS.read_text())
    found: list[str] = []
    for name, numbers in monitors.items():
        every = numbers["every_n_steps"]
        fewer = {key: max(1, round(numbers[key] * steps / every)) for key in ("max_train", "max_val") if key in numbers}
        if steps < every:
            found += [f"monitors.{name}.{key}={value}" for key, value in {"every_n_steps": steps, **fewer}.items()]
    return found


def words(device: str, batch: int, monitors: str, steps: int, more: Sequence[str] = ()) -> list[str]:
    """The command line of a contestant, which has no end, and neither validates nor saves."""
    return [
        "data=cifar10",
        f"data.batch_size={batch}",
        "pretext=simclr",
        "encoder=resnet18",
        f"monitors={monitors}",
        *(looks(steps) if monitors == "default" else []),
        f"trainer.accelerator={'cpu' if device == 'cpu' else 'gpu'}",
        "trainer.max_steps=10000000",
        "trainer.val_check_interval=0",
        "trainer.checkpoint_every_n_steps=0",
        "trainer.progress_bar=false",
        "trainer.data_timeout=100000",
        "logger=csv",
        "run.dir=run",
        *more,
    ]


def measure(device: str, batch: int, rounds: int, steps: int, more: Sequence[str]) -> dict[str, Any]:
    """Race the contestants.

    Returns:
        A row: ``step_s`` and its quartiles of each, and of "on" and "guards" the ``cost``, a share of the step of "off", paired
        round by round, and ``hooks``, the share of their own steps that the clock counted in their hooks, less that of "off".
    """
    racers: list[Racer] = []
    first: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as home:
        try:
            for name, (guards, monitors) in CONTESTANTS.items():
                spec = {"guards": guards, "words": words(device, batch, monitors, steps, more)}
                racers.append(Racer(name, sys.executable, "guards_run.py", spec, Path(home) / name))
                first[name] = racers[-1].window(steps)  # compiles, allocates, and looks for the first time
            turns = race(racers, dict.fromkeys(CONTESTANTS, steps // TURNS), rounds * TURNS)
        finally:
            for racer in racers:
                racer.close()
    windows = {name: [first[name], *joined([turn[name] for turn in turns], TURNS)] for name in CONTESTANTS}
    seconds = {name: [window["seconds"] / steps for window in windows[name][1:]] for name in CONTESTANTS}
    row: dict[str, Any] = {"device": device, "batch": batch, "steps": steps, "turns": TURNS, "rounds": rounds}
    for name, values in seconds.items():
        row[name] = {"step_s": statistics.median(values), "quartiles": list(throughput_stats.quartiles(values))}
    shares = {name: hooks(windows[name]) for name in CONTESTANTS}
    for name in ("on", "guards"):
        row[name]["hooks"] = shares[name] - shares["off"]
        cost = throughput_stats.ratio(seconds[name], seconds["off"])
        low, high = (None if end is None else end - 1 for end in (cost.low, cost.high))
        row[name]["cost"] = {"median": cost.median - 1, "low": low, "high": high}
    return row


def joined(turns: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Windows of so many turns: ``seconds`` of all of them, and ``hooks`` at the end of the last."""
    parts = [turns[start : start + count] for start in range(0, len(turns), count)]
    return [{"seconds": sum(turn["seconds"] for turn in part), "hooks": part[-1]["hooks"]} for part in parts]


def hooks(windows: Sequence[dict[str, Any]]) -> float:
    """The share of all windows but the first that callbacks had, of ``seconds`` of each and of ``hooks`` up to its end."""
    return (windows[-1]["hooks"] - windows[0]["hooks"]) / sum(window["seconds"] for window in windows[1:])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: what a step takes, and what guards and monitors add to it, a line for each device."""
    heads = [
        "ResNet-18, 32 px, SimCLR",
        "a step without",
        "guards and monitors",
        "in their hooks",
        "guards alone",
        "in their hooks",
    ]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for row in rows:
        told = row["machine"]
        where = told["gpu"] or f"{told['cores']} cores, {told['precision'].partition(':')[0]}"
        costs = [
            text for name in ("on", "guards") for text in (_percent(row[name]["cost"]), f"{100 * row[name]['hooks']:.2f} %")
        ]
        lines.append(f"| {where}, {row['batch']} images | {1e3 * row['off']['step_s']:.0f} ms | {' | '.join(costs)} |")
    return "\n".join(lines) + "\n"


def _percent(cost: dict[str, float | None]) -> str:
    """``+0.8 % (-0.2 to +1.5)``."""
    median, low, high = ("" if end is None else f"{100 * end:+.1f}" for end in (cost["median"], cost["low"], cost["high"]))
    return f"{median} %{f' ({low} to {high})' if low else ''}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(STEPS), default="cpu")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, help=f"of a window; a multiple of {TURNS}")
    parser.add_argument("--words", nargs="*", default=[], help="more words for the command line")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--report", action="store_true", help="write the table of the documentation, and measure nothing")
    given = parser.parse_args(arguments)
    if given.report:
        PAGE.write_text(marked.replaced(PAGE.read_text(), "guards", table(json.loads(RESULTS.read_text())["rows"])))
        return
    steps = given.steps or STEPS[given.device]
    if steps % TURNS:
        parser.error(f"--steps {steps} is no multiple of {TURNS}, the turns of a window")
    row = measure(given.device, given.batch, given.rounds, steps, given.words)
    row["machine"] = machine_record.record()
    for name in ("on", "guards"):
        cost = row[name]["cost"]
        spread = "" if cost["low"] is None else f" ({cost['low']:+.2%} to {cost['high']:+.2%})"
        over = "" if cost["median"] <= LIMIT else f"  above {LIMIT:.0%}"
        on, off = (1e3 * row[who]["step_s"] for who in (name, "off"))
        print(f"{name:7} {on:.1f} ms, off {off:.1f} ms: {cost['median']:+.2%}{spread}{over}; hooks {row[name]['hooks']:.2%}")
    if given.out:
        known = json.loads(given.out.read_text())["rows"] if given.out.is_file() else []
        kept = [other for other in known if (other["device"], other["batch"]) != (row["device"], row["batch"])]
        given.out.write_text(json.dumps({"rows": [*kept, row]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
