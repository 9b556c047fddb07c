"""What a two-view training step costs, and which part of the machine limits it: counted, simulated, checked by measurement.

    python benchmarks/cost_model.py                            # tables for the machines of `CLUSTERS`
    python benchmarks/cost_model.py --measure --out rows.json  # rates and steps of this machine beside the prediction

Counted: floating-point operations and bytes of each operator, on tensors without memory. Assumed: the share of a datasheet's
rate that is reached (`EFFICIENCY`). Known: datasheets. Measured once on a processor, or now with ``--measure``: `CpuRates`.
What it all means stands in ``docs/explanation/performance.md``.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cost_simulation as simulation
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ssl_framework.encoders.presets import resnet18, resnet50, vit_small, vit_tiny
from ssl_framework.views.draw import ViewSpec
from ssl_framework.views.kernels import device, graph

EFFICIENCY = (
    0.5  # share of the peak, of arithmetic and of memory, that a good training step reaches (assumed; MLPerf: 0.35 to 0.6)
)
BACKWARD = 2 / 3  # of a step's arithmetic: gradients of inputs and of weights cost a forward each
NETWORK = 0.8  # share of a link's rate that a ring reaches (assumed)
ADAMW_BYTES = 4 * (4 + 3) + 4 + 2  # a parameter, a step: reads p, m, v, g, writes p, m, v; autocast reads p and writes its copy
DRAW_BYTES = 64 * 4  # parameters of one view on their way to the device
QUEUE = 4  # batches that may wait between two stages: the loader's prefetching


class Workload(NamedTuple):
    """A model, its images and its batch on one device.

    Attributes:
        name: for tables.
        encoder: builds it.
        size: side of the views.
        stored: side of the images as they are stored.
        batch: samples a step on one device.
        jpeg_bytes: of a file of `stored` pixels at quality 90.
    """

    name: str
    encoder: Callable[[], nn.Module]
    size: int
    stored: int
    batch: int
    jpeg_bytes: int


class Cost(NamedTuple):
    """What a training step of two views costs, for one sample; weights are shared by all of them.

    Attributes:
        flops: forward and backward; a multiplication and an addition are two.
        moved: bytes that operators read and write, none of them fused, in bfloat16.
        operators: ``(flops, moved)`` of each operator, for the roofline.
        saved: bytes of activations that wait for the backward.
        parameters: numbers in the model.
    """

    flops: float
    moved: float
    operators: tuple[tuple[float, float], ...]
    saved: float
    parameters: int


class Device(NamedTuple):
    """A device's peak rates: dense bf16 FLOP/s, bytes/s of memory, and the share of both that is reached."""

    name: str
    flops: float
    memory: float
    efficiency: float
    source: str


class Cluster(NamedTuple):
    """Devices and what joins them. Rates in bytes/s, one direction.

    Attributes:
        name: for tables.
        device: of which there are `hosts` times `devices`.
        hosts: machines.
        devices: in each host.
        cores: for the loader, each host.
        link: between the devices of a host, each.
        host_to_device: each device.
        network: of the whole host; infinite for one host.
        disk: of the whole host.
        shared: the model runs on the loader's cores.
    """

    name: str
    device: Device
    hosts: int
    devices: int
    cores: int
    link: float
    host_to_device: float
    network: float
    disk: float
    shared: bool = False


class CpuRates(NamedTuple):
    """Seconds on one core for 32 and for 224 pixels, and bytes/s that it copies.

    Attributes:
        decode: of a JPEG file of 32 and of 256 pixels.
        view: of one whole view.
        cut: of one view's crop and resize alone.
        copy: bytes/s from the cache of the disk into a batch.
    """

    decode: tuple[float, float]
    view: tuple[float, float]
    cut: tuple[float, float]
    copy: float


A100 = Device("A100 SXM 80 GB", 312e12, 2.039e12, EFFICIENCY, "NVIDIA A100 datasheet, 2021: bf16 dense, HBM2e")
H100 = Device(
    "H100 SXM", 989e12, 3.35e12, EFFICIENCY, "NVIDIA H100 datasheet, 2023: bf16 dense (half of the sparse number), HBM3"
)
CPU = Device("2 cores, AVX512-bf16", 0.41e12, 35e9, 1.0, "a large product and a large copy by --measure: reached, not promised")
# NVLink 600 and 900 GB/s and PCIe 64 and 128 GB/s are both directions together in the datasheets; network: one card of 10 or
# 100 Gb/s, and the DGX H100's eight of 400; cores: Google a2-highgpu-1g and a3-highgpu-1g (two virtual ones are one), DGX A100
# and DGX H100; disks: NVMe drives, 3 of whose 7 GB/s each are taken as reached
CLUSTERS = (
    Cluster("this CPU", CPU, 1, 1, 2, math.inf, math.inf, math.inf, 1e9, shared=True),
    Cluster("1 A100", A100, 1, 1, 6, 300e9, 32e9, math.inf, 3e9),
    Cluster("1 H100", H100, 1, 1, 13, 450e9, 64e9, math.inf, 3e9),
    Cluster("8 A100", A100, 1, 8, 128, 300e9, 32e9, math.inf, 24e9),
    Cluster("8 H100", H100, 1, 8, 112, 450e9, 64e9, math.inf, 24e9),
    Cluster("4 x 8 H100, 10 Gb/s", H100, 4, 8, 112, 450e9, 64e9, 10e9 / 8, 24e9),
    Cluster("4 x 8 H100, 100 Gb/s", H100, 4, 8, 112, 450e9, 64e9, 100e9 / 8, 24e9),
    Cluster("4 x 8 H100, 8 x 400 Gb/s", H100, 4, 8, 112, 450e9, 64e9, 8 * 400e9 / 8, 24e9),
)
# one core of that CPU, by --measure; decoding 256 px from photographs, which are dearer than the clouds of --measure
CPU_RATES = CpuRates(decode=(1 / 40_000, 1 / 2_100), view=(1 / 136_000, 1 / 1_700), cut=(1 / 200_000, 1 / 4_700), copy=4e9)

WORKLOADS = (
    Workload("ResNet-18, 32 px", lambda: resnet18(img_size=32), 32, 32, 512, 1_200),
    Workload("ViT-tiny/4, 32 px", lambda: vit_tiny(img_size=32, patch_size=4), 32, 32, 512, 1_200),
    Workload("ResNet-18, 224 px", lambda: resnet18(img_size=224, small_stem=False), 224, 256, 256, 25_000),
    Workload("ResNet-50, 224 px", lambda: resnet50(img_size=224), 224, 256, 256, 25_000),
    Workload("ViT-S/16, 224 px", lambda: vit_small(img_size=224, patch_size=16), 224, 256, 256, 25_000),
)
PATHS = ("resident", "cache", "JPEG", "large JPEG")
LARGE_PIXELS, LARGE_BYTES = 500 * 375, 110_000  # ImageNet's usual file, not made smaller before


class Meter(TorchDispatchMode):
    """Counts what each operator computes (by torch's own formulas) and how many bytes it reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and note ``(flops, bytes)``; views of a tensor move nothing."""
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:  # an operator made of others is counted as those
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        out = func(*args, **kwargs)
        if not func.is_view and not packet.__name__.startswith(("empty", "new_empty", "_unsafe_view", "device")):
            flops = flop_registry[packet](*args, **kwargs, out_val=out) if packet in flop_registry else 0
            self.operators.append((float(flops), float(_nbytes((args, tuple(kwargs.values()))) + _nbytes(out))))
        return out


def count(encoder: nn.Module, size: int, batch: int = 8) -> Cost:
    """Run two views of a batch forward and backward on tensors without memory.

    Args:
        encoder: any module from ``(B, 3, size, size)`` to `Encoding` or a tensor.
        size: side of the views.
        batch: samples; costs are divided by it.

    Raises:
        ValueError: the batch is not positive.
    """
    if batch < 1:
        raise ValueError(f"batch={batch}: count at least one sample.")
    encoder = encoder.to("meta", torch.bfloat16)
    parameters = list(encoder.parameters())
    known = {id(parameter) for parameter in parameters}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in known:
            saved[id(base)] = base.nbytes
            alive.append(base)  # a freed tensor's id may be given away
        return tensor

    alive: list[Tensor] = []
    with Meter() as meter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        for _ in range(2):
            out = encoder(torch.empty(batch, 3, size, size, device="meta", dtype=torch.bfloat16))
            pooled: Tensor = out if isinstance(out, Tensor) else out.pooled
            pooled.sum().backward()
    operators = tuple((flops / batch, moved / batch) for flops, moved in meter.operators)
    flops, moved = (sum(column) for column in zip(*operators, strict=True))
    return Cost(flops, moved, operators, sum(saved.values()) / batch, sum(p.numel() for p in parameters))


def view_bytes(workload: Workload, batch: int = 8) -> dict[str, float]:
    """Bytes that the device kernel moves for one view of SimCLR: from whole images, or from the crops of JPEG files."""
    blur = 0.5 if workload.size > 32 else 0.0
    spec = ViewSpec(
        True, flip=0.5, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, jitter_p=0.8, grey_p=0.2, blur_p=blur
    )
    recipe = device.make_recipe((spec, spec), (workload.size, workload.size), 3)
    width = 4 + 1 + 5 + 6 * len(recipe.blends) + 1 + 1 + sum(recipe.kernel) + 1 + 6
    parameters = (torch.empty(2, batch, width, device="meta"),)
    images = torch.empty(batch, 3, workload.stored, workload.stored, dtype=torch.uint8, device="meta")
    crops = torch.empty(2, batch, 3, workload.size, workload.size, dtype=torch.uint8, device="meta")
    with Meter() as whole:
        graph.render(images, parameters, (recipe,), torch.bfloat16)
    with Meter() as colours:
        graph.finish((crops,), parameters, (recipe,), torch.bfloat16)
    return {name: sum(moved for _, moved in m.operators) / (2 * batch) for name, m in (("whole", whole), ("JPEG", colours))}


def step_seconds(cost: Cost, batch: int, on: Device) -> float:
    """Roofline, operator by operator: each waits for its arithmetic or for its memory; then the optimiser's pass."""
    flops, memory = on.flops * on.efficiency, on.memory * on.efficiency
    waiting = sum(max(f / flops, m / memory) for f, m in cost.operators)
    return batch * waiting + cost.parameters * ADAMW_BYTES / memory


def all_reduce_bytes(parameters: int, members: int) -> float:
    """What each member of a ring sends for float32 gradients: ``2 (n - 1) / n`` of them.

    Raises:
        ValueError: there is no member.
    """
    if members < 1:
        raise ValueError(f"members={members}: a ring has at least one.")
    return 2 * (members - 1) / members * 4 * parameters


def all_reduce_seconds(parameters: int, cluster: Cluster) -> float:
    """The ring at its narrowest place: one device's link, or the network of a whole host, which its rings share."""
    narrowest = min(cluster.link, cluster.network) * NETWORK
    return all_reduce_bytes(parameters, cluster.hosts * cluster.devices) / narrowest


def loader_seconds(workload: Workload, path: str, rates: CpuRates = CPU_RATES) -> float:
    """Seconds of one core that one sample needs before it is on the device.

    Raises:
        ValueError: the path is none of `PATHS`.
    """
    _check_path(path)
    large = workload.size > 32
    if path == "resident":
        return 0.0
    if path == "cache":
        return 3 * workload.stored**2 / rates.copy
    pixels = LARGE_PIXELS / 256**2 if path == "large JPEG" else 1.0
    return rates.decode[large] * pixels + 2 * rates.cut[large]


def traffic(workload: Workload, path: str) -> tuple[float, float]:
    """Bytes of one sample from the disk, and from the host to the device (index and draws; pixels unless they are there)."""
    _check_path(path)
    stored, crops = 3.0 * workload.stored**2, 2.0 * 3 * workload.size**2
    disk = {"resident": 0.0, "cache": stored, "JPEG": float(workload.jpeg_bytes)}.get(path, float(LARGE_BYTES))
    return disk, 2 * DRAW_BYTES + {"resident": 0.0, "cache": stored}.get(path, crops)


def parts(workload: Workload, cost: Cost, path: str, cluster: Cluster, views: dict[str, float]) -> dict[str, float]:
    """Seconds a batch of what happens on the device, one after the other: views, model, and the all-reduce that shows."""
    model = step_seconds(cost, workload.batch, cluster.device)
    if cluster.shared:
        loader = loader_seconds(workload, path) - (2 * CPU_RATES.cut[workload.size > 32] if "JPEG" in path else 0)
        made = (loader + 2 * CPU_RATES.view[workload.size > 32]) / cluster.cores
    else:
        made = 2 * views["JPEG" if "JPEG" in path else "whole"] / (cluster.device.memory * cluster.device.efficiency)
    # gradients travel while the backward goes on, but for what it does not hide
    exposed = max(0.0, all_reduce_seconds(cost.parameters, cluster) - BACKWARD * model)
    return {"views": workload.batch * made, "model": model, "all-reduce": exposed}


def stages(workload: Workload, path: str, cluster: Cluster, on_device: float) -> list[simulation.Stage]:
    """The pipeline of one device, with its share of the host's cores and disk.

    Args:
        workload: model and images.
        path: where images come from, one of `PATHS`.
        cluster: the machines.
        on_device: seconds that the device takes for a batch.
    """
    disk, transfer = (moved * workload.batch for moved in traffic(workload, path))
    cores = max(1, cluster.cores // cluster.devices)
    loading = 0.0 if cluster.shared else loader_seconds(workload, path) * workload.batch
    return [
        simulation.Stage("disk", disk / (cluster.disk / cluster.devices), 1, QUEUE),
        simulation.Stage("loader cores", loading, cores, QUEUE),
        simulation.Stage("host to device", transfer / cluster.host_to_device, 1, QUEUE),
        simulation.Stage("device", on_device, 1, QUEUE, members=cluster.hosts * cluster.devices),
    ]


def predict(workload: Workload, cost: Cost, path: str, cluster: Cluster, views: dict[str, float]) -> dict[str, Any]:
    """A row: images/s of the whole cluster, what limits it, and the cores that a device would need."""
    seconds = parts(workload, cost, path, cluster, views)
    on_device = sum(seconds.values())
    flow = simulation.simulate(stages(workload, path, cluster, on_device))
    limit = max(seconds, key=lambda name: seconds[name]) if flow.limit == "device" else flow.limit
    needed = 0.0 if cluster.shared else workload.batch / on_device * loader_seconds(workload, path)
    return {
        "workload": workload.name,
        "path": path,
        "cluster": cluster.name,
        "images_per_second": cluster.hosts * cluster.devices * workload.batch / flow.seconds,
        "limit": limit,
        "model_ms": 1e3 * seconds["model"],
        "views_ms": 1e3 * seconds["views"],
        "all_reduce_ms": 1e3 * all_reduce_seconds(cost.parameters, cluster),
        "cores_per_device": needed,
    }


def _nbytes(values: Any) -> int:
    if isinstance(values, Tensor):
        return values.numel() * values.itemsize
    return sum(_nbytes(value) for value in values) if isinstance(values, (tuple, list)) else 0


def _check_path(path: str) -> None:
    if path not in PATHS:
        raise ValueError(f"path={path!r}: images come from one of {', '.join(PATHS)}.")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cost_row(workload: Workload, cost: Cost, views: dict[str, float]) -> dict[str, Any]:
    """What one sample costs, as a row of a table."""
    row: dict[str, Any] = {"workload": workload.name, "GFLOP": cost.flops / 1e9, "MB moved": cost.moved / 1e6}
    row |= {"MB saved": cost.saved / 1e6, "M parameters": cost.parameters / 1e6, "MB a view": views["whole"] / 1e6}
    for path in PATHS:
        disk, transfer = traffic(workload, path)
        row |= {f"{path}: KB read": disk / 1e3, f"{path}: KB sent": transfer / 1e3}
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables; write all rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="measure this machine and compare")
    parser.add_argument("--out", type=Path, help="a JSON file for all rows")
    options = parser.parse_args(arguments)
    counted = [(workload, count(workload.encoder(), workload.size), view_bytes(workload)) for workload in WORKLOADS]
    rows: dict[str, list[dict[str, Any]]] = {"costs": [cost_row(*one) for one in counted]}
    rows["predictions"] = [
        predict(workload, cost, path, cluster, views)
        for cluster in CLUSTERS
        for workload, cost, views in counted
        for path in PATHS
        if workload.size > 32 or path != "large JPEG"
    ]
    if options.measure:
        import cost_measure  # noqa: PLC0415  (compiles the kernel for CPUs)

        rows |= cost_measure.measure({workload.name: cost for workload, cost, _ in counted})
    for title, some in rows.items():
        print(f"\n{title}\n\n{table(some)}")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
