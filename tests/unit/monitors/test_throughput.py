"""Samples a second and the share of waiting, by a clock that the test turns."""

from collections.abc import Iterator
from typing import Any

import pytest
import pytorch_lightning as pl

from ssl_framework.monitors import Throughput
from ssl_framework.types import Batch
from watching import Loader, Record, Toy, make_trainer


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("ssl_framework.monitors.throughput.time.perf_counter", clock)
    return clock


class SlowLoader(Loader):
    def __init__(self, clock: Clock, fetch: float) -> None:
        super().__init__(batch_size=16)
        self.clock, self.fetch = clock, fetch

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            self.clock.now += self.fetch
            yield batch


class Slow(Toy):
    """A step takes 3 seconds, the first one 100."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        self.clock.now += 3 if batch_idx else 100
        return super().training_step(batch, batch_idx)


class Validated(Slow):
    """A validation takes 1000 seconds."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.clock.now += 1000


class SlowSave(pl.Callback):
    def __init__(self, clock: Clock, folder: Any) -> None:
        self.clock, self.folder = clock, folder

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            trainer.save_checkpoint(self.folder / "a.ckpt")
            self.clock.now += 1000


def logged(record: Record) -> dict[str, float]:
    return {name.removeprefix("throughput/"): value for name, value in record.rows[-1][1].items()}


def test_it_counts_samples_and_waiting(clock: Clock) -> None:
    record = Record("throughput")
    make_trainer(6, [Throughput(every_n_steps=3), record]).fit(Slow(clock), SlowLoader(clock, fetch=1.0))
    assert record.rows[1] == (2, {})
    assert logged(record) == pytest.approx({"samples_per_s": 16 / 4, "data_wait": 0.25})
    assert {step for step, values in record.rows if values} == {3, 4, 5, 6}


def test_accumulated_batches_count_each(clock: Clock) -> None:
    record = Record("throughput")
    trainer = make_trainer(3, [Throughput(every_n_steps=3), record], accumulate_grad_batches=2)
    trainer.fit(Slow(clock), SlowLoader(clock, fetch=0.0))
    assert logged(record) == pytest.approx({"samples_per_s": 16 / 3, "data_wait": 0.0})


def test_validation_and_checkpoints_are_not_waiting(clock: Clock, tmp_path: Any) -> None:
    record = Record("throughput")
    callbacks = [Throughput(every_n_steps=8), record, SlowSave(clock, tmp_path)]
    trainer = make_trainer(
        8, callbacks, val_check_interval=4, check_val_every_n_epoch=None, limit_val_batches=1, num_sanity_val_steps=0
    )
    trainer.fit(Validated(clock), SlowLoader(clock, fetch=1.0), Loader())
    assert logged(record) == pytest.approx({"samples_per_s": 4.0, "data_wait": 0.25})


def test_a_number_of_steps_is_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Throughput(every_n_steps=0)
