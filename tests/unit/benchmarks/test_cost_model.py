"""The cost model: counts against sums done by hand, rings and rooflines against formulas, the pipeline against its bounds."""

import itertools
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    """`cost_model` and `cost_simulation`, imported as the script finds them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import cost_model
        import cost_simulation

        yield SimpleNamespace(model=cost_model, simulation=cost_simulation)
    for name in ("cost_model", "cost_simulation"):
        del sys.modules[name]


@pytest.fixture
def model(modules: SimpleNamespace) -> ModuleType:
    return modules.model


@pytest.fixture
def simulation(modules: SimpleNamespace) -> ModuleType:
    return modules.simulation


class Attention(nn.Module):
    """One head over the pixels of an image as tokens, 3 to 16 wide."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(3, 48, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x.flatten(2).transpose(1, 2))[:, None].chunk(3, dim=3)
        return F.scaled_dot_product_attention(query, key, value)


def test_a_convolution_counts_what_it_computes(model: ModuleType):
    cost = model.count(nn.Conv2d(3, 8, 3, padding=1, bias=False), 10)
    forward = 2 * 8 * 10 * 10 * 3 * 3 * 3  # a multiplication and an addition for each output and each weight
    assert cost.flops == 2 * 2 * forward  # two views; backward: weights only, nobody asks for the gradient of the pixels
    assert cost.parameters == 8 * 3 * 9
    pixels, maps = 2 * 3 * 100, 2 * 8 * 100  # bytes in bfloat16
    assert cost.saved == 2 * pixels
    assert cost.moved >= 2 * (2 * pixels + 2 * maps)


def test_an_attention_block_counts_what_it_computes(model: ModuleType):
    cost = model.count(Attention(), 4)
    tokens = 16
    projection = 2 * tokens * 3 * 48
    products = 2 * (2 * tokens * tokens * 16)  # queries by keys, weights by values
    # backward: the projection's weights; each of the two products has two inputs
    exact = 2 * (2 * projection + 3 * products)
    again = 2 * (2 * tokens * tokens * 16)  # a fused kernel computes queries by keys a second time
    assert cost.flops in (exact, exact + again)


@pytest.mark.parametrize("number", [0, 1])
def test_it_agrees_with_the_counter_of_torch(number: int, model: ModuleType):
    workload = model.WORKLOADS[number]
    cost = model.count(workload.encoder(), workload.size, batch=2)
    encoder = workload.encoder().to("meta", torch.bfloat16)
    with FlopCounterMode(display=False) as counter:
        encoder(torch.empty(2, 3, workload.size, workload.size, device="meta", dtype=torch.bfloat16)).pooled.sum().backward()
    assert cost.flops == pytest.approx(counter.get_total_flops())  # one view of two samples, two views of one
    assert cost.parameters == sum(p.numel() for p in encoder.parameters())


def test_costs_do_not_depend_on_the_batch(model: ModuleType):
    costs = [model.count(model.WORKLOADS[0].encoder(), 32, batch=batch) for batch in (4, 8)]
    assert costs[0].flops == costs[1].flops
    assert costs[0].saved == pytest.approx(costs[1].saved, rel=0.01)
    with pytest.raises(ValueError, match="at least one sample"):
        model.count(nn.Identity(), 8, batch=0)


def test_known_models(model: ModuleType):
    """ResNet-50: 4.1 G multiplications a view of 224 pixels (He et al., Table 1 says 3.8); forward, and twice for backward."""
    cost = model.count(model.WORKLOADS[3].encoder(), 224, batch=1)
    assert cost.flops / 1e9 == pytest.approx(2 * 3 * 2 * 4.1, rel=0.03)
    assert cost.parameters / 1e6 == pytest.approx(23.5, rel=0.01)


def test_an_operator_waits_for_arithmetic_or_for_memory(model: ModuleType):
    slow = model.Device("", flops=10.0, memory=5.0, efficiency=0.5, source="")
    cost = model.Cost(0.0, 0.0, ((20.0, 1.0), (1.0, 10.0)), 0.0, 0)
    assert model.step_seconds(cost, 3, slow) == pytest.approx(3 * (20 / 5 + 10 / 2.5))
    weights = cost._replace(operators=(), parameters=7)
    assert model.step_seconds(weights, 3, slow) == pytest.approx(7 * (7 * 4 + 6) / 2.5)


def test_all_reduce(model: ModuleType):
    assert model.all_reduce_bytes(1000, 1) == 0
    assert model.all_reduce_bytes(1000, 2) == 4000
    assert model.all_reduce_bytes(1000, 4) == pytest.approx(1.5 * 4000)
    with pytest.raises(ValueError, match="at least one"):
        model.all_reduce_bytes(1000, 0)
    hosts = next(c for c in model.CLUSTERS if c.name == "4 x 8 H100, 100 Gb/s")
    assert model.all_reduce_seconds(10**6, hosts) == pytest.approx(2 * 31 / 32 * 4e6 / (12.5e9 * model.NETWORK))
    one = hosts._replace(hosts=1, network=float("inf"))
    assert model.all_reduce_seconds(10**6, one) == pytest.approx(2 * 7 / 8 * 4e6 / (450e9 * model.NETWORK))


def test_traffic_and_loading(model: ModuleType):
    large = model.WORKLOADS[3]
    assert model.traffic(large, "resident") == (0, 2 * model.DRAW_BYTES)
    assert model.traffic(large, "cache") == (3 * 256**2, 3 * 256**2 + 2 * model.DRAW_BYTES)
    assert model.traffic(large, "JPEG") == (25_000, 2 * 3 * 224**2 + 2 * model.DRAW_BYTES)
    rates = model.CpuRates(decode=(1.0, 8.0), view=(1.0, 1.0), cut=(0.5, 2.0), copy=1e6)
    assert model.loader_seconds(large, "resident", rates) == 0
    assert model.loader_seconds(large, "cache", rates) == pytest.approx(3 * 256**2 / 1e6)
    assert model.loader_seconds(large, "JPEG", rates) == 8 + 2 * 2
    assert model.loader_seconds(large, "large JPEG", rates) == pytest.approx(8 * 500 * 375 / 256**2 + 4)
    for function in (model.traffic, model.loader_seconds):
        with pytest.raises(ValueError, match=r"'tape'.*resident"):
            function(large, "tape")


def predicted(model: ModuleType, **changes: float | bool):
    """Images/s and limit of a made-up model on a made-up machine: 1 ms of arithmetic a sample."""
    slow = model.Device("", flops=2e9, memory=1e15, efficiency=0.5, source="")
    cluster = model.Cluster("", slow, 1, 1, 4, 1e15, 1e15, float("inf"), 1e15)._replace(**changes)
    cost = model.Cost(1e6, 0.0, ((1e6, 0.0),), 0.0, 10**6)
    row = model.predict(model.WORKLOADS[3], cost, "JPEG", cluster, {"whole": 0.0, "JPEG": 0.0})
    return row["images_per_second"], row["limit"], row["cores_per_device"]


def test_what_limits_a_machine(model: ModuleType):
    rate, limit, cores = predicted(model)
    assert (limit, rate) == ("model", pytest.approx(1000, rel=0.02))
    assert cores == pytest.approx(1000 * (1 / 2100 + 2 / 4700))
    large = model.WORKLOADS[3]
    core = 1 / model.loader_seconds(large, "JPEG")
    dear = model.CPU_RATES._replace(decode=(0.1, 0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.loader_seconds, "__defaults__", (dear,))
        assert predicted(model)[:2] == (pytest.approx(4 / (0.1 + 2 / 4700), rel=0.03), "loader cores")
    assert core > 1000
    assert predicted(model, host_to_device=1e8)[:2] == (
        pytest.approx(1e8 / model.traffic(large, "JPEG")[1], rel=0.03),
        "host to device",
    )
    assert predicted(model, disk=1e6)[:2] == (pytest.approx(1e6 / 25_000, rel=0.03), "disk")
    hosts = predicted(model, hosts=4, network=1e6)
    ring = 2 * 3 / 4 * 4e6 / (1e6 * model.NETWORK)
    exposed = ring - model.BACKWARD * 0.256
    assert hosts[1] == "all-reduce"
    assert hosts[0] == pytest.approx(4 * 256 / (0.256 + exposed), rel=0.15)  # four wait for the slowest


def test_the_slowest_stage_sets_the_pace(simulation: ModuleType):
    Stage = simulation.Stage
    for order in itertools.permutations([("a", 1.0, 1), ("b", 6.0, 2), ("c", 2.0, 1)]):
        flow = simulation.simulate([Stage(name, seconds, servers) for name, seconds, servers in order], jitter=0)
        # two servers of 6 s each; where they start unevenly the last batch counted may be one half of a pair
        assert flow.seconds == pytest.approx(3.0, rel=0.01)
        assert flow.limit == "b"
        assert flow.busy["b"] == pytest.approx(1.0, rel=0.01)
        assert flow.busy["c"] == pytest.approx(2 / 3, rel=0.02)


def test_queues_never_hold_more_than_they_may(simulation: ModuleType):
    stages = [simulation.Stage("a", 0.5, 4, 3), simulation.Stage("b", 0.2, 2, 1), simulation.Stage("c", 1.0, 1, 3)]
    flow = simulation.simulate(stages, batches=200, jitter=0.5)
    for k, stage in enumerate(stages[1:], 1):
        arrived, started = flow.leave[k - 1], flow.start[k]
        assert (started >= arrived).all()
        waiting = [((arrived <= at) & (started > at)).sum() for at in np.concatenate([arrived, started])]
        assert max(waiting) <= stage.queue
        if k == 2:
            assert max(waiting) == stage.queue  # the stage before is faster: it is held back
    for k, stage in enumerate(stages):
        working = [((flow.start[k] <= at) & (flow.leave[k] > at)).sum() for at in flow.start[k]]
        assert max(working) <= stage.servers


def test_jitter_costs_and_queues_help(simulation: ModuleType):
    def pace(queue: int, jitter: float, members: int = 1) -> float:
        stages = [simulation.Stage("a", 1.0, 1, queue), simulation.Stage("b", 1.0, 1, queue, members)]
        return simulation.simulate(stages, batches=2000, jitter=jitter).seconds

    assert pace(1, 0.0) == pytest.approx(1.0)
    assert pace(1, 0.5) > pace(16, 0.5) > 1.0
    assert pace(4, 0.1, members=32) > 1.15  # the slowest of many


def test_mistakes_are_named(simulation: ModuleType):
    Stage = simulation.Stage
    for stages, numbers, message in (
        ([], {}, "at least one"),
        ([Stage("a", -1.0)], {}, "seconds from 0 up"),
        ([Stage("a", float("nan"))], {}, "seconds from 0 up"),
        ([Stage("a", 1.0, servers=0)], {}, "one server"),
        ([Stage("a", 1.0, queue=0)], {}, "place to wait"),
        ([Stage("a", 1.0), Stage("a", 1.0)], {}, "share a name"),
        ([Stage("a", 1.0)], {"batches": 2}, "at least 8"),
        ([Stage("a", 1.0)], {"jitter": 1.0}, "share in"),
    ):
        with pytest.raises(ValueError, match=message):
            simulation.simulate(stages, **numbers)


def test_the_command(model: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(model, "WORKLOADS", model.WORKLOADS[:1])
    monkeypatch.setattr(model, "CLUSTERS", model.CLUSTERS[:2])
    model.main(["--out", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [len(rows[name]) for name in ("costs", "predictions")] == [1, 2 * 3]
    assert {row["limit"] for row in rows["predictions"]} == {"model"}
    assert "| ResNet-18, 32 px | cache | 1 A100 |" in capsys.readouterr().out
