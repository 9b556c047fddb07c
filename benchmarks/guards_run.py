"""A contestant of `guards.py`: the command itself, with or without what guards and watches it."""

import sys

import pytorch_lightning as pl
from throughput_window import claim_pipes, specification

from ssl_framework import cli, run

_GUARDS = ("FiniteGate", "Preemption", "RankAgreement", "Watchdog", "WholeRun")


class Nothing(pl.Callback):
    """Stands where a guard would."""

    def __init__(self, *_: object) -> None:
        pass


def main() -> None:
    """Train between windows, until the race ends."""
    orders, replies = claim_pipes()
    spec = specification()
    if not spec["guards"]:
        for name in _GUARDS:
            setattr(run, name, Nothing)
    gate = [
        "+monitors.gate._target_=throughput_ours.Gate",
        f"+monitors.gate.orders={orders}",
        f"+monitors.gate.replies={replies}",
    ]
    sys.exit(cli.run(["pretrain", *spec["words"], *gate]))


if __name__ == "__main__":
    main()
