"""Planted collapses are named, healthy features are not."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_framework.metrics import effective_rank, normalised_std, rankme
from ssl_framework.monitors import Collapse, CollapseWarning
from support import on_ranks
from watching import Loader, Record, Toy, as_rank, make_trainer

Plant = Callable[[int], dict[str, Tensor | None]]


def rows(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def constant(step: int, d: int = 64) -> Tensor:
    return rows(1, d, 0) + 1e-3 * rows(128, d, 1 + step)


def line(step: int, d: int = 64) -> Tensor:
    return rows(128, 1, 1 + step) @ rows(1, d, 0) + 1e-4 * rows(128, d, 500 + step)


def healthy(step: int, d: int = 64) -> Tensor:
    return rows(128, d, 1 + step)


def seen(embedding: Callable[[int], Tensor], projection: Callable[[int], Tensor] | None = None) -> Plant:
    return lambda step: {"embedding": embedding(step), "projection": projection(step) if projection else None}


def warned(plant: Plant, steps: int = 6, monitor: Collapse | None = None) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CollapseWarning)
        make_trainer(steps, [monitor or Collapse(every_n_steps=1)]).fit(Toy(plant), Loader())
    return [str(one.message) for one in caught if issubclass(one.category, CollapseWarning)]


@pytest.mark.parametrize(
    ("features", "kind"),
    [(constant, "complete collapse"), (line, "dimensional collapse"), (lambda _: torch.zeros(128, 64), "complete collapse")],
)
def test_a_planted_collapse_is_named_once(features: Callable[[int], Tensor], kind: str) -> None:
    messages = warned(seen(features))
    assert sum(message.startswith(f"{kind} of the embedding") for message in messages) == 1
    assert len(messages) == len(set(messages))
    (message,) = warned(seen(healthy, features))[:1]
    assert message.startswith(f"{kind} of the projection")


def test_each_kind_is_seen_by_its_own_number() -> None:
    assert not any("dimensional" in message for message in warned(seen(constant)))
    assert not any("complete" in message for message in warned(seen(line)))


@pytest.mark.parametrize("d", [2, 8, 64, 300])
@pytest.mark.parametrize("n", [4, 128])
def test_healthy_features_are_silent(d: int, n: int) -> None:
    def shifted(step: int) -> Tensor:
        return rows(n, d, step) + 0.5

    assert warned(seen(lambda step: rows(n, d, step), shifted), steps=8) == []


def test_few_directions_of_many_dimensions_are_seen_although_a_part_is_looked_at() -> None:
    def narrow(step: int) -> Tensor:
        return rows(128, 3, 1 + step) @ rows(3, 600, 0)

    assert [message.split(" of")[0] for message in warned(seen(narrow), steps=12)] == ["dimensional collapse"]


def test_it_warns_again_after_recovery_only() -> None:
    def twice(step: int) -> Tensor:
        return healthy(step) if 4 <= step < 8 else constant(step)

    monitor = Collapse(every_n_steps=1, max_rows=128)
    assert len(warned(seen(twice), steps=12, monitor=monitor)) == 2


def test_a_common_part_is_no_collapse_of_an_embedding_and_is_one_of_a_projection() -> None:
    def shared(step: int) -> Tensor:
        return rows(1, 64, 0) + 0.05 * rows(128, 64, 1 + step)

    assert warned(seen(shared)) == []
    assert [message.split(":")[0] for message in warned(seen(healthy, shared))] == ["complete collapse of the projection"]


def test_one_low_look_is_not_enough() -> None:
    assert warned(seen(lambda step: constant(step) if step == 2 else healthy(step)), monitor=Collapse(1, max_rows=128)) == []


@pytest.mark.parametrize(("stalls_at", "kinds"), [(12, []), (6, ["complete collapse of the projection"])])
def test_features_that_widen_are_young_until_they_stop(stalls_at: int, kinds: list[str]) -> None:
    def widening(step: int) -> Tensor:
        return rows(1, 64, 0) + 0.02 * 1.25 ** min(step, stalls_at) * rows(128, 64, 1 + step)  # its spread is 0.2 at step 10

    messages = warned(seen(healthy, widening), steps=13, monitor=Collapse(1, max_rows=128))
    assert [message.split(":")[0] for message in messages] == kinds


def test_nan_is_named_and_not_measured() -> None:
    record = Record("collapse")
    with pytest.warns(CollapseWarning, match="not finite of the embedding"):
        make_trainer(3, [Collapse(every_n_steps=1), record]).fit(
            Toy(seen(lambda _: torch.full((8, 4), float("nan")))), Loader()
        )
    assert record.rows[-1] == (3, {})


def test_numbers_are_those_of_the_last_rows() -> None:
    record = Record("collapse")
    make_trainer(5, [Collapse(every_n_steps=5), record]).fit(Toy(seen(healthy, line)), Loader())
    assert record.rows[3] == (4, {})
    logged = record.rows[4][1]
    assert set(logged) == {f"collapse/{x}_{y}" for x in ("embedding", "projection") for y in ("std", "rank", "rankme")}
    last = healthy(4)  # 2 * 64 rows: the last batch fills them
    assert logged["collapse/embedding_std"] == pytest.approx(normalised_std(last), rel=1e-5)
    assert logged["collapse/embedding_rank"] == pytest.approx(effective_rank(last), rel=1e-4)
    assert logged["collapse/embedding_rankme"] == pytest.approx(rankme(last), rel=1e-4)
    assert logged["collapse/projection_rank"] == pytest.approx(effective_rank(line(4)), rel=1e-4)


def test_small_batches_are_gathered_over_steps() -> None:
    record = Record("collapse")
    make_trainer(20, [Collapse(every_n_steps=20), record]).fit(Toy(seen(lambda step: rows(8, 64, step))), Loader())
    together = torch.cat([rows(8, 64, step) for step in range(4, 20)])
    assert record.rows[-1][1]["collapse/embedding_rank"] == pytest.approx(effective_rank(together), rel=1e-4)


def test_a_resumed_run_does_not_warn_again(tmp_path: Path) -> None:
    trainer = make_trainer(4, [Collapse(every_n_steps=1)])
    with pytest.warns(CollapseWarning):
        trainer.fit(Toy(seen(constant)), Loader())
    trainer.save_checkpoint(tmp_path / "four.ckpt")
    trainer = make_trainer(8, [Collapse(every_n_steps=1)])
    trainer.fit(Toy(seen(constant)), Loader(), ckpt_path=tmp_path / "four.ckpt", weights_only=True)  # warnings are errors


def test_bad_numbers_are_refused() -> None:
    for options in ({"every_n_steps": 0}, {"patience": 0}, {"max_dims": 0}, {"max_rows": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            Collapse(**options)


def watch_on_rank(rank: int, world: int) -> dict[str, float]:
    as_rank(rank, world)
    record = Record("collapse")
    plant = seen(lambda step: rows(64, 64, 10 * step + rank))
    make_trainer(2, [Collapse(every_n_steps=2), record], strategy="ddp", devices=world).fit(Toy(plant), Loader())
    return record.rows[-1][1]


def test_two_processes_judge_all_rows_together() -> None:
    first, second = on_ranks(2, watch_on_rank)
    assert first == second
    together = torch.cat([rows(64, 64, 10), rows(64, 64, 11)])
    assert first["collapse/embedding_rank"] == pytest.approx(effective_rank(together), rel=1e-4)
