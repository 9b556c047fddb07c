"""The device kernel against the operators of the reference, for random and for awkward parameters, on whatever is there.

The tolerance is 2e-5, pixels in [0, 1], and 1e-4 for views that are warped: these look up pixels at places whose rounding grows
with the image, in the reference as here. Where solarize is a step, pixels within 1e-4 of the threshold are left out.
"""

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_framework import keyed
from ssl_framework.views.draw import ImageDraw, Plan, ViewSpec, boxes, draw_views
from ssl_framework.views.kernels import cpu, device, graph, reference

TOLERANCE, WARPED = 2e-5, 1e-4
MEAN, STD = (0.5, 0.4, 0.45), (0.2, 0.25, 0.3)
EVERYTHING = ViewSpec(
    crop=True,
    flip=0.5,
    degrees=30.0,
    translate=0.1,
    scale=(0.8, 1.2),
    shear=10.0,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.3,
    jitter_p=0.8,
    grey_p=0.2,
    blur_p=0.5,
    solarize_p=0.3,
)
COLOURS = dataclasses.replace(EVERYTHING, degrees=0.0, translate=0.0, scale=(1.0, 1.0), shear=0.0)
NOTHING = ViewSpec(flip=0.5)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan_of(*views: ViewSpec, size: tuple[int, int], local: tuple[ViewSpec, ...] = (), local_size: tuple[int, int] = (8, 8)):
    return Plan(views, local, size, local_size)


def facts(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return MEAN[:channels], STD[:channels]


def images(batch: int, channels: int, source: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (batch, channels, *source), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def drawn(plan: Plan, batch: int, source: tuple[int, int], seed: int = 0) -> tuple[ImageDraw, Tensor]:
    draw = draw_views(plan.global_views, plan.local_views, keyed.mix(seed, 0, torch.arange(batch)))
    cut = [boxes(draw.crop[v], spec, source, size) for v, (spec, size) in enumerate(sized(plan))]
    return draw, torch.stack(cut)


def sized(plan: Plan) -> list[tuple[ViewSpec, tuple[int, int]]]:
    views = [(spec, plan.size) for spec in plan.global_views]
    return views + [(spec, plan.local_size) for spec in plan.local_views]


def coloured(view: Tensor, draw: ImageDraw, v: int, spec: ViewSpec) -> tuple[Tensor, Tensor]:
    """What the reference makes of a view in [0, 1], not normalised; and where nobody can say on which side solarize falls."""
    view = reference.grey(reference.jitter(view, draw.jitter[v], draw.order[v]), draw.grey[v])
    view = reference.gaussian_blur(view, draw.blur[v], spec.blur_kernel_size((view.shape[2], view.shape[3])))
    doubtful = ((view - spec.solarize_threshold).abs() < 1e-4) & draw.solarize[v][:, None, None, None]
    return reference.solarize(view, draw.solarize[v], spec.solarize_threshold), doubtful


def check(ours: Tensor, v: int, expected: Tensor, doubtful: Tensor, tolerance: float = TOLERANCE) -> None:
    std, mean = (torch.tensor(values[: ours.shape[2]])[:, None, None] for values in (STD, MEAN))
    difference = (ours[v].cpu() * std + mean - expected).abs().masked_fill(doubtful, 0)
    assert doubtful.float().mean() < 0.01
    assert difference.max() < tolerance


def check_views(pixels: Tensor, cut: Tensor, draw: ImageDraw, plan: Plan, where: str = "cpu") -> None:
    mean, std = facts(pixels.shape[1])
    made, local = device.make_views(pixels.to(where), cut, draw, plan, mean, std, torch.float32)
    for v, (spec, size) in enumerate(sized(plan)):
        shaped = reference.affine(reference.resized_crop(pixels.float() / 255, cut[v], draw.flip[v], size), draw.affine[v])
        group, number = (made, v) if v < len(plan.global_views) else (local, v - len(plan.global_views))
        assert group is not None
        check(group, number, *coloured(shaped, draw, v, spec), WARPED if (draw.affine[v, :, 0] != 0).any() else TOLERANCE)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("source", "size"),
    [((32, 32), (32, 32)), ((40, 57), (24, 36)), ((64, 50), (20, 33)), ((17, 9), (31, 40)), ((9, 9), (1, 1))],
)
@pytest.mark.parametrize("spec", [EVERYTHING, COLOURS], ids=["everything", "colours"])
def test_random_views(spec: ViewSpec, source: tuple[int, int], size: tuple[int, int], channels: int):
    plan = plan_of(spec, dataclasses.replace(spec, blur_kernel=0.2, solarize_threshold=0.3), NOTHING, size=size)
    for seed in range(3):
        check_views(images(48, channels, source, seed), *reversed(drawn(plan, 48, source, seed)), plan)


@pytest.mark.parametrize("spec", [EVERYTHING, COLOURS], ids=["everything", "colours"])
def test_large_views(spec: ViewSpec):
    plan = plan_of(spec, NOTHING, size=(224, 224), local=(spec,), local_size=(96, 96))
    check_views(images(3, 3, (256, 300)), *reversed(drawn(plan, 3, (256, 300))), plan)


@pytest.mark.parametrize(("source", "size"), [((40, 57), (31, 23)), ((13, 9), (50, 41))])
def test_the_strongest_changes(source: tuple[int, int], size: tuple[int, int]):
    spec = dataclasses.replace(
        COLOURS, hue=0.5, brightness=1.0, contrast=1.0, saturation=1.0, jitter_p=1.0, blur_p=1.0, blur_sigma=(0.01, 8.0)
    )
    spec = dataclasses.replace(spec, blur_kernel=0.5, crop_scale=(0.001, 1.0), crop_ratio=(0.2, 5.0))
    turned = dataclasses.replace(spec, degrees=180.0, shear=45.0, translate=0.5, scale=(0.3, 3.0))
    plan = plan_of(spec, turned, size=size)
    for seed in range(3):
        check_views(images(48, 3, source, seed), *reversed(drawn(plan, 48, source, seed)), plan)


def test_five_channels():
    spec = dataclasses.replace(EVERYTHING, jitter_p=0.0, grey_p=0.0)
    plan = plan_of(spec, size=(24, 20))
    draw, cut = drawn(plan, 16, (30, 40))
    pixels = images(16, 5, (30, 40))
    made, _ = device.make_views(pixels, cut, draw, plan, (0.0,) * 5, (1.0,) * 5, torch.float32)
    for first in (0, 2):  # no channel knows of another
        some = pixels[:, first : first + 3]
        alone, _ = device.make_views(some, cut, draw, plan, (0.0,) * 3, (1.0,) * 3, torch.float32)
        torch.testing.assert_close(made[:, :, first : first + 3], alone, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_for_cpus_says_the_same(dtype: torch.dtype):
    """A run that moves from a processor to a GPU goes on with the same views."""
    spec = dataclasses.replace(EVERYTHING, solarize_p=0.0)
    plan = plan_of(spec, dataclasses.replace(COLOURS, solarize_p=0.0), size=(24, 20), local=(spec,), local_size=(12, 9))
    draw, cut = drawn(plan, 64, (30, 40))
    arguments = (images(64, 3, (30, 40)), cut, draw, plan, MEAN, STD, dtype)
    for ours, theirs in zip(device.make_views(*arguments), cpu.make_views(*arguments), strict=True):
        assert ours is not None
        assert theirs is not None
        rounding = 0.0 if dtype == torch.float32 else 2**-7  # one step of bfloat16
        torch.testing.assert_close(ours.float(), theirs.float(), atol=WARPED / min(STD), rtol=rounding)
        assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("size", [(12, 17), (1, 1), (5, 40), (40, 40)])
def test_edge_boxes(size: tuple[int, int]):
    edge = [(0, 0, 21, 34), (20, 33, 1, 1), (7, 9, 1, 1), (3, 0, 1, 34), (0, 5, 21, 1), (2, 3, 12, 17), (4, 1, 3, 30)]
    edge += [(9, 14, 12, 20), (0, 33, 21, 1), (20, 0, 1, 34), (0, 0, 1, 1), (1, 0, 20, 33)]
    plan = plan_of(COLOURS, NOTHING, size=size)
    draw, _ = drawn(plan, len(edge), (21, 34))
    check_views(images(len(edge), 3, (21, 34)), torch.tensor([edge, edge]), draw, plan)


def test_every_box_of_a_small_image():
    every = [(t, s, h, w) for h in range(1, 6) for w in range(1, 5) for t in range(6 - h) for s in range(5 - w)]
    plan = plan_of(NOTHING, size=(3, 4))
    draw, _ = drawn(plan, len(every), (5, 4))
    check_views(images(len(every), 3, (5, 4)), torch.tensor([every]), draw, plan)


def test_every_order_of_the_jitter():
    orders = torch.cartesian_prod(*[torch.arange(4)] * 4)
    orders = orders[[len(set(order.tolist())) == 4 for order in orders]]
    for without in (
        {},
        {"hue": 0.0},
        {"contrast": 0.0},
        {"brightness": 0.0, "saturation": 0.0},
        {"brightness": 0.0, "hue": 0.0},
    ):
        plan = plan_of(dataclasses.replace(COLOURS, jitter_p=1.0, grey_p=0.0, solarize_p=0.0, **without), size=(12, 10))
        draw, cut = drawn(plan, len(orders), (12, 10))
        check_views(images(24, 3, (12, 10)), cut, draw._replace(order=orders[None]), plan)


def test_greys_and_pure_colours():
    pixels = images(16, 3, (9, 8))
    pixels[:, :, 0] = pixels[:, :1, 0]
    pixels[:, :, 1] = (torch.arange(8)[None].bitwise_and(torch.tensor([1, 2, 4])[:, None]) > 0).to(torch.uint8) * 255
    plan = plan_of(dataclasses.replace(COLOURS, crop=False, blur_p=0.0, solarize_p=0.0), size=(9, 8))
    check_views(pixels, *reversed(drawn(plan, 16, (9, 8))), plan)


def test_multi_crop():
    local = tuple(dataclasses.replace(COLOURS, crop_scale=(0.05, 0.4), blur_p=p) for p in (0.0, 0.5, 1.0))
    plan = plan_of(COLOURS, NOTHING, size=(40, 44), local=local, local_size=(20, 24))
    check_views(images(16, 3, (48, 60)), *reversed(drawn(plan, 16, (48, 60))), plan)


def test_views_that_do_not_fit_in_memory_together(monkeypatch: pytest.MonkeyPatch):
    plan = plan_of(*[COLOURS] * 5, size=(20, 24))
    draw, cut = drawn(plan, 6, (30, 40))
    arguments = (images(6, 3, (30, 40)), cut, draw, plan, MEAN, STD, torch.float32)
    together, _ = device.make_views(*arguments)
    monkeypatch.setattr(graph, "_AT_ONCE", 2 * 4 * 6 * 3 * 20 * 40)  # two views
    assert torch.equal(device.make_views(*arguments)[0], together)


def test_finished_crops():
    local = (dataclasses.replace(EVERYTHING, blur_p=1.0),) * 2
    plan = plan_of(EVERYTHING, NOTHING, size=(24, 31), local=local, local_size=(12, 9))
    draw, _ = drawn(plan, 20, (50, 50))
    crops = [images(40, 3, size, seed).unflatten(0, (2, 20)) for seed, size in enumerate([(24, 31), (12, 9)])]
    made = device.finish_crops(crops[0], crops[1], draw, plan, MEAN, STD, torch.float32)
    for v, (spec, _) in enumerate(sized(plan)):
        group = made[v // 2]
        assert group is not None
        check(group, v % 2, *coloured(crops[v // 2][v % 2].float() / 255, draw, v, spec))
    only = plan._replace(local_views=())
    alone, none = device.finish_crops(crops[0], None, draw_of(draw, slice(2)), only, MEAN, STD, torch.float32)
    assert torch.equal(alone, made[0])
    assert none is None


def draw_of(draw: ImageDraw, views: slice) -> ImageDraw:
    return ImageDraw(draw.key, *(field[views] for field in draw[1:]))


def test_a_sample_does_not_depend_on_its_batch():
    plan = plan_of(EVERYTHING, EVERYTHING, size=(24, 20))
    draw, cut = drawn(plan, 9, (30, 40))
    pixels = images(9, 3, (30, 40))
    together, _ = device.make_views(pixels, cut, draw, plan, MEAN, STD, torch.float32)
    for b in range(9):
        alone, _ = device.make_views(pixels[b : b + 1], cut[:, b : b + 1], draw.at(b), plan, MEAN, STD, torch.float32)
        torch.testing.assert_close(alone[:, 0], together[:, b], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_what_comes_out(dtype: torch.dtype, channels: int):
    """Type, memory, and the same numbers from any strides; the input stays."""
    spec = dataclasses.replace(EVERYTHING, jitter_p=0.0, grey_p=0.0) if channels == 2 else EVERYTHING
    plan = plan_of(spec, spec, size=(24, 20), local=(spec,), local_size=(12, 9))
    draw, cut = drawn(plan, 4, (30, 40))
    pixels, (mean, std) = images(4, channels, (30, 40)), facts(channels)
    before = pixels.clone()
    exact = device.make_views(pixels, cut, draw, plan, mean, std, torch.float32)
    made = device.make_views(pixels.to(memory_format=torch.channels_last), cut, draw, plan, mean, std, dtype)
    assert torch.equal(pixels, before)
    for ours, wanted, shape in zip(made, exact, [(2, 4, channels, 24, 20), (1, 4, channels, 12, 9)], strict=True):
        assert ours is not None
        assert wanted is not None
        assert (ours.dtype, tuple(ours.shape)) == (dtype, shape)
        assert ours.permute(0, 1, 3, 4, 2).is_contiguous()
        assert torch.equal(ours, wanted.to(dtype))


def test_neither_precision_setting_nor_autocast_reaches_the_pixels():
    plan = plan_of(EVERYTHING, size=(64, 64))
    draw, cut = drawn(plan, 4, (80, 80))
    arguments = (images(4, 3, (80, 80)), cut, draw, plan, MEAN, STD, torch.float32)
    wanted, _ = device.make_views(*arguments)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", torch.bfloat16), contextlib.ExitStack() as after:
        after.callback(torch.set_float32_matmul_precision, before)
        assert torch.equal(device.make_views(*arguments)[0], wanted)


class Watch(TorchDispatchMode):
    """Remembers which operators ran, and which of them moved numbers between the processor and the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.overloads: set[str] = set()
        self.moved: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in (*args, *(kwargs or {}).values(), out) if isinstance(leaf, Tensor)}
        name = func.__name__.partition(".")[0]
        self.names.add(name)
        if func.namespace == "aten":
            self.overloads.add(func.__name__)
        if len(devices) > 1:
            self.moved.add(name)
        return out


def watched(plan: Plan, where: str) -> Watch:
    """What `render` and `finish` run for this plan, on a device that is only pretended."""
    channels = 3
    recipes = [
        device.make_recipe(plan.global_views, plan.size, channels),
        device.make_recipe(plan.local_views, plan.local_size, 3),
    ]
    draw, cut = drawn(plan, 2, (30, 40))
    split = len(plan.global_views)
    constants = torch.tensor([MEAN, STD])
    packed = [
        device.pack(draw_of(draw, which), cut[which], specs, recipe, constants)
        for which, specs, recipe in zip(
            (slice(split), slice(split, None)), (plan.global_views, plan.local_views), recipes, strict=True
        )
    ]
    with FakeTensorMode(), Watch() as watch:
        sent = tuple(torch.empty(values.shape, device=where) for values in packed)
        crops = [
            torch.empty((len(values), 2, 3, *recipe.size), dtype=torch.uint8, device=where)
            for values, recipe in zip(sent, recipes, strict=True)
        ]
        made = graph.render(torch.empty((2, 3, 30, 40), dtype=torch.uint8, device=where), sent, tuple(recipes), torch.bfloat16)
        graph.finish(tuple(crops), sent, tuple(recipes), torch.bfloat16)
        assert {view.device.type for view in made} == {where}
    return watch


def test_nothing_waits_for_the_device():
    """On a pretended GPU: reading a number, or a shape that depends on data, raises; a copy to or from the host is seen."""
    watch = watched(plan_of(EVERYTHING, EVERYTHING, size=(24, 20), local=(EVERYTHING,), local_size=(12, 12)), "cuda")
    assert not watch.moved
    assert not watch.names & {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "lift_fresh"}
    assert {"_embedding_bag_forward_only", "grid_sampler_2d", "remainder_"} <= watch.names


def test_the_watch_sees_what_waits():
    with FakeTensorMode(), Watch() as watch:
        values = torch.ones(3, device="cuda")
        values.cpu()
        assert watch.moved == {"_to_copy"}
        with pytest.raises(DataDependentOutputException):
            values[0].item()
        with pytest.raises(DynamicOutputShapeException):
            values.nonzero()


def test_nothing_is_double_precision():
    """MPS has no float64: no operator of the graph may ask for it, nor mix devices."""
    plan = plan_of(EVERYTHING, size=(24, 20), local=(EVERYTHING,), local_size=(12, 12))
    draw, cut = drawn(plan, 2, (30, 40))

    class Types(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for leaf in out if isinstance(out, (tuple, list)) else [out]:
                assert not isinstance(leaf, Tensor) or leaf.device.type == "cpu" or leaf.dtype != torch.float64, func
            return out

    with Types():
        made, local = device.make_views(images(2, 3, (30, 40)).to("meta"), cut, draw, plan, MEAN, STD, torch.float32)
    assert local is not None
    assert (made.device.type, local.device.type) == ("meta", "meta")


def implemented_on_mps(name: str) -> bool:
    """Whether torch's own list of operators has one for MPS, or makes it of others."""
    spec = importlib.util.find_spec("torchgen")
    assert spec is not None
    assert spec.origin is not None
    listed = (Path(spec.origin).parent / "packaged/ATen/native/native_functions.yaml").read_text().split("\n- func: ")
    entries = {entry.partition("(")[0]: entry for entry in listed}
    entry = entries[name] if name in entries else entries[name.removesuffix(".default")]
    if "structured_delegate: " in entry:
        entry = entries[entry.partition("structured_delegate: ")[2].split()[0]]
    kernels = entry.partition("dispatch:")[2]
    return "MPS" in kernels.replace("SparseMPS", "") or "Composite" in kernels or not kernels


def test_mps_has_every_operator():
    watch = watched(plan_of(EVERYTHING, size=(24, 20), local=(EVERYTHING,), local_size=(12, 12)), "cpu")
    assert len(watch.overloads) > 20
    assert [name for name in sorted(watch.overloads) if not implemented_on_mps(name)] == []
    assert not implemented_on_mps("heaviside.out")


def test_what_no_view_can_use_is_left_out():
    plain = plan_of(NOTHING, size=(24, 20), local=(ViewSpec(crop=True),), local_size=(12, 12))
    assert not watched(plain, "cpu").names & {"grid_sampler_2d", "remainder_", "clamp_", "mean"}
    recipe = device.make_recipe((dataclasses.replace(EVERYTHING, jitter_p=0.0, blur_kernel=0.05),), (24, 20), 3)
    assert (recipe.blends, recipe.hue, recipe.kernel) == ((), False, (1, 1))
    recipe = device.make_recipe((EVERYTHING,), (40, 64), 1)
    assert (recipe.blends, recipe.hue, recipe.grey, recipe.kernel) == ((0, 1), False, False, (5, 7))


@pytest.mark.parametrize("function", ["render", "finish"])
def test_one_graph(function: str, monkeypatch: pytest.MonkeyPatch):
    """dynamo takes each function whole, and its graph computes the same."""
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(device, "_compiled_render", lambda: whole(graph.render))
    monkeypatch.setattr(device, "_compiled_finish", lambda: whole(graph.finish))
    plan = plan_of(EVERYTHING, NOTHING, size=(24, 20), local=(EVERYTHING,), local_size=(12, 12))
    draw, cut = drawn(plan, 6, (30, 40))
    crops = images(12, 3, (24, 20)).unflatten(0, (2, 6)), images(6, 3, (12, 12))[None]
    made: list[tuple[Tensor, Tensor | None]] = []
    for compiled in (False, True):
        if function == "render":
            made.append(device.make_views(images(6, 3, (30, 40)), cut, draw, plan, MEAN, STD, torch.float32, compiled=compiled))
        else:
            made.append(device.finish_crops(*crops, draw, plan, MEAN, STD, torch.float32, compiled=compiled))
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    for eager, whole_graph in zip(*made, strict=True):
        torch.testing.assert_close(whole_graph, eager, atol=1e-4, rtol=0)


def whole(function):
    return torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=False)


def test_other_parameters_need_no_other_graph():
    """A new batch has new boxes, colours and orders; nothing is compiled for it."""
    torch.compiler.reset()
    counters.clear()
    plan = plan_of(COLOURS, size=(24, 20))
    recipe = device.make_recipe(plan.global_views, plan.size, 3)
    run = whole(graph.render)
    for seed in range(3):
        draw, cut = drawn(plan, 6, (30, 40), seed)
        packed = device.pack(draw, cut, plan.global_views, recipe, torch.tensor([MEAN, STD]))
        run(images(6, 3, (30, 40), seed), (packed,), (recipe,), torch.float32)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_inductor_compiles_it():
    plan = plan_of(dataclasses.replace(COLOURS, blur_p=0.0), size=(24, 20))
    draw, cut = drawn(plan, 6, (30, 40))
    arguments = (images(6, 3, (30, 40)), cut, draw, plan, MEAN, STD, torch.float32)
    compiled, _ = device.make_views(*arguments, compiled=True)
    torch.testing.assert_close(compiled, device.make_views(*arguments)[0], atol=1e-4, rtol=0)


@needs_cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_cuda_is_never_waited_for():
    plan = plan_of(EVERYTHING, EVERYTHING, size=(24, 20), local=(EVERYTHING,), local_size=(12, 12))
    draw, cut = drawn(plan, 6, (30, 40))
    pixels = images(6, 3, (30, 40)).cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    with contextlib.ExitStack() as after:
        after.callback(torch.cuda.set_sync_debug_mode, "default")
        made, _ = device.make_views(pixels, cut, draw, plan, MEAN, STD, torch.bfloat16)
        device.finish_crops(
            torch.zeros_like(made, dtype=torch.uint8),
            None,
            draw_of(draw, slice(2)),
            plan._replace(local_views=()),
            MEAN,
            STD,
            torch.bfloat16,
        )


@needs_cuda
@pytest.mark.parametrize("spec", [EVERYTHING, COLOURS], ids=["everything", "colours"])
def test_cuda_is_as_exact(spec: ViewSpec):
    local = (dataclasses.replace(spec, crop_scale=(0.05, 0.4)),) * 2
    plan = plan_of(spec, spec, size=(64, 64), local=local, local_size=(32, 32))
    check_views(images(64, 3, (80, 90)), *reversed(drawn(plan, 64, (80, 90))), plan, "cuda")
