"""kNN and probe: they see what is there, leave no trace, and go on where they stood."""

import inspect
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from ssl_framework import monitors
from ssl_framework.monitors import OnlineKNN, OnlineProbe
from ssl_framework.monitors.watch import embed
from support import on_ranks
from watching import Data, Loader, Record, Toy, Unlabelled, as_rank, make_trainer

CONF = Path(__file__).parents[3] / "conf" / "monitors"
BOTH = pytest.mark.parametrize("monitor", [OnlineKNN, OnlineProbe])


def final(module: Toy) -> list[Tensor]:
    return [value.clone() for value in module.state_dict().values()]


@BOTH
def test_it_sees_classes_that_separate_and_chance_where_they_do_not(monitor: type) -> None:
    data, name = Data(200, 100), "knn/accuracy" if monitor is OnlineKNN else "probe/accuracy"
    trainer = make_trainer(4, [monitor(data, every_n_steps=4)])
    trainer.fit(Toy(), Loader())
    assert trainer.callback_metrics[name] > 0.9
    for split in data.splits.values():
        split.targets = torch.randint(2, (len(split),), generator=torch.Generator().manual_seed(3))
    trainer = make_trainer(4, [monitor(data, every_n_steps=4)])
    trainer.fit(Toy(), Loader())
    assert trainer.callback_metrics[name] == pytest.approx(0.5, abs=0.15)


@BOTH
def test_training_is_the_same_to_the_bit_with_and_without_it(monitor: type) -> None:
    def train(callbacks: list[pl.Callback]) -> tuple[list[Tensor], Tensor, Any, Any, list[bool]]:
        torch.manual_seed(7)
        np.random.seed(7)
        random.seed(7)
        module = Toy()
        make_trainer(6, callbacks).fit(module, Loader())
        draws = torch.rand(3), np.random.rand(), random.random()
        return final(module), *draws, [child.training for child in module.modules()]

    alone, watched = train([]), train([monitor(Data(), every_n_steps=2)])
    assert all(torch.equal(a, b) for a, b in zip(alone[0], watched[0], strict=True))
    assert torch.equal(alone[1], watched[1])
    assert alone[2:] == watched[2:]


def test_embedding_restores_modes_and_statistics_one_by_one() -> None:
    module, trainer = Toy(), make_trainer(1, [])
    trainer.fit(module, Loader())
    module.train()
    module.encoder.frozen.eval()
    before, modes, state = final(module), [child.training for child in module.modules()], torch.get_rng_state()
    features = embed(trainer, module, Data().split("train"), torch.arange(20), batch_size=7)
    assert features.shape == (20, 8)
    assert not features.requires_grad
    assert torch.equal(features, embed(trainer, module, Data().split("train"), torch.arange(20), batch_size=20))
    assert [child.training for child in module.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(before, final(module), strict=True))
    assert torch.equal(state, torch.get_rng_state())


@BOTH
def test_it_looks_once_a_step_and_at_the_last_one(monitor: type) -> None:
    data = Data()
    record = Record("knn" if monitor is OnlineKNN else "probe")
    make_trainer(7, [monitor(data, every_n_steps=3), record], accumulate_grad_batches=2).fit(Toy(), Loader())
    assert len(data.split("val").read) == 3 * 31  # after steps 3, 6 and 7, each once although every step has two batches


def test_loggers_get_every_look_although_lightning_writes_at_other_steps(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    trainer = make_trainer(5, [OnlineKNN(Data(), every_n_steps=2)], logger=logger, log_every_n_steps=50)
    trainer.fit(Toy(), Loader())
    rows = (tmp_path / "metrics.csv").read_text().split()
    assert rows[0].split(",") == ["knn/accuracy", "step"]
    assert [row.split(",")[1] for row in rows[1:]] == ["1", "3", "4"]


@BOTH
def test_a_part_of_large_splits_is_read_and_it_depends_on_the_seed_alone(monitor: type) -> None:
    read = []
    for seed in (0, 0, 1):
        data = Data(100, 50)
        make_trainer(1, [monitor(data, every_n_steps=1, max_train=10, max_val=5, seed=seed)]).fit(Toy(), Loader())
        read.append((data.split("train").read, data.split("val").read))
        assert (len(set(read[-1][0])), len(set(read[-1][1]))) == (10, 5)
    assert read[0] == read[1] != read[2]


def test_the_probe_resumes_to_the_bit(tmp_path: Path) -> None:
    def probe() -> OnlineProbe:
        data = Data(61, 300)
        for split in data.splits.values():
            split.targets = torch.randint(5, (len(split),), generator=torch.Generator().manual_seed(3))
        return OnlineProbe(data, every_n_steps=2, passes=2)

    def state(probe: OnlineProbe) -> list[Tensor]:
        saved = probe.state_dict()
        moments = [v for entry in saved["optimizer"]["state"].values() for v in entry.values()]
        return [*saved["head"].values(), *moments, torch.tensor(saved["looks"])]

    whole, whole_record = probe(), Record("probe")
    make_trainer(8, [whole, whole_record]).fit(Toy(), Loader())
    first = make_trainer(4, [probe()])
    first.fit(Toy(), Loader())
    first.save_checkpoint(tmp_path / "four.ckpt")
    second, record = probe(), Record("probe")
    trainer = make_trainer(8, [second, record])
    trainer.fit(Toy(), Loader(start=4), ckpt_path=tmp_path / "four.ckpt", weights_only=True)
    assert record.rows[1:] == whole_record.rows[5:]
    assert "probe/accuracy" in record.rows[-1][1]
    assert all(torch.equal(a, b) for a, b in zip(state(second), state(whole), strict=True))


def test_the_state_of_the_probe_is_a_copy() -> None:
    probe = OnlineProbe(Data(), every_n_steps=1, passes=1)
    make_trainer(1, [probe]).fit(Toy(), Loader())
    saved = probe.state_dict()
    before = saved["head"]["weight"].clone()
    make_trainer(1, [probe]).fit(Toy(), Loader())
    assert torch.equal(saved["head"]["weight"], before)
    assert not torch.equal(probe.state_dict()["head"]["weight"], before)


def test_a_probe_of_another_encoder_is_refused() -> None:
    probe = OnlineProbe(Data(), every_n_steps=1)
    saved = {"looks": 0, "head": {"weight": torch.zeros(3, 5), "bias": torch.zeros(3)}, "optimizer": None}
    saved["optimizer"] = torch.optim.AdamW([torch.zeros(3, 5), torch.zeros(3)]).state_dict()
    probe.load_state_dict(saved)
    with pytest.raises(ValueError, match="same encoder"):
        make_trainer(1, [probe]).fit(Toy(), Loader())


@BOTH
def test_what_cannot_be_watched_is_refused_before_training(monitor: type) -> None:
    module = Toy()
    module.views = None
    with pytest.raises(ValueError, match="give it views="):
        make_trainer(2, [monitor(Data())]).fit(module, Loader())
    with pytest.raises(ValueError, match="no labels"):
        make_trainer(2, [monitor(Unlabelled())]).fit(Toy(), Loader())
    with pytest.raises(ValueError, match="val_share above 0"):
        make_trainer(2, [monitor(Data(val=0))]).fit(Toy(), Loader())
    with pytest.raises(ValueError, match="at least 1"):
        make_trainer(2, [monitor(Data(), max_val=0)]).fit(Toy(), Loader())
    with pytest.raises(ValueError, match="every_n_steps is 0"):
        monitor(Data(), every_n_steps=0)


def test_nothing_of_the_probe_belongs_to_the_module() -> None:
    module, probe = Toy(), OnlineProbe(Data(), every_n_steps=1)
    make_trainer(2, [probe]).fit(module, Loader())
    mine = {id(p) for group in probe._optimizer.param_groups for p in group["params"]}
    assert len(mine) == 2
    assert not mine & {id(p) for p in module.parameters()}


def watch_on_rank(rank: int, world: int) -> tuple[dict[str, float], list[int], Tensor]:
    as_rank(rank, world)
    data = Data()
    trainer = make_trainer(
        2, [OnlineKNN(data, every_n_steps=2), OnlineProbe(data, every_n_steps=2)], strategy="ddp", devices=world
    )
    module = Toy()
    trainer.fit(module, Loader(8, start=10 * rank))
    assert trainer.world_size == world
    features = embed(trainer, module, data.split("val"), torch.arange(31), batch_size=4)
    values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.endswith("/accuracy")}
    return values, data.split("val").read, features


def test_two_processes_embed_half_each_and_log_the_same() -> None:
    (values, read, features), (other_values, other_read, other_features) = on_ranks(2, watch_on_rank)
    assert values == other_values
    assert set(values) == {"knn/accuracy", "probe/accuracy"}
    assert read == [*range(16)] * 2  # once for both monitors, once here
    assert other_read == [*range(16, 31), 30] * 2  # equal shares: the last one twice
    assert features.shape == (31, 8)
    assert torch.equal(features, other_features)
    assert len(features.unique(dim=0)) == 31


@pytest.mark.parametrize(("seed", "times"), [(0, 1), (1, 2)])
def test_monitors_that_look_at_the_same_images_embed_them_once(seed: int, times: int) -> None:
    def values(*kinds: type) -> dict[str, float]:
        monitors_ = [kind(data, every_n_steps=2, max_train=20, seed=seed * (kind is OnlineProbe)) for kind in kinds]
        trainer = make_trainer(4, monitors_)
        trainer.fit(Toy(), Loader())
        return {k: float(v) for k, v in trainer.callback_metrics.items() if k.endswith("/accuracy")}

    data = Data()
    both = values(OnlineKNN, OnlineProbe)
    assert len(data.split("val").read) == 2 * 31 * times
    assert both == values(OnlineKNN) | values(OnlineProbe)


def test_the_yaml_lists_every_argument_with_its_default() -> None:
    assert yaml.safe_load((CONF / "none.yaml").read_text()) == {}
    nodes = yaml.safe_load((CONF / "default.yaml").read_text())
    named = "knn probe collapse gradients chance similarity followers targets masks samples throughput"
    assert list(nodes) == named.split()
    for node in nodes.values():
        path = node.pop("_target_")
        assert path.startswith("ssl_framework.monitors.")
        signature = inspect.signature(getattr(monitors, path.rpartition(".")[2])).parameters
        assert node == {name: p.default for name, p in signature.items() if name != "data"}
