"""How the CPU kernel is compiled, kept, shared by threads, and what memory it takes."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from numba.core import caching, config
from numba.core.runtime import _nrt_python, rtsys

from ssl_framework.views.draw import Plan, ViewSpec
from ssl_framework.views.kernels import cpu
from ssl_framework.views.kernels.cpu import compile as compiling
from ssl_framework.views.kernels.cpu import threads

EVERYTHING = ViewSpec(
    crop=True, degrees=9.0, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5, jitter_p=1.0, grey_p=0.5, blur_p=1.0
)
HITS = """
from ssl_framework.views.kernels.cpu import entries
for made in (entries.draw(), entries.boxes(), entries.render()):
    assert sum(made.stats.cache_hits.values()) == 1 and not made.stats.cache_misses, made.stats
"""


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_an_import_does_not_load_numba():
    code = "import sys, ssl_framework.views.kernels.cpu; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def make(batch: int) -> None:
    plan = Plan((EVERYTHING, EVERYTHING), (), (32, 32), (32, 32))
    draw = cpu.draw_views(plan.global_views, (), 0, 0, torch.arange(batch))
    pixels = torch.zeros(batch, 3, 40, 40, dtype=torch.uint8)
    boxes = cpu.boxes(draw.crop, plan, (40, 40))
    cpu.make_views(pixels, boxes, draw, plan, (0.5,) * 3, (0.5,) * 3, torch.bfloat16)


def test_a_second_process_loads_what_the_first_compiled():
    make(1)
    done = subprocess.run([sys.executable, "-c", HITS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(path.name for path in Path(compiling.__file__).parent.glob("*.py")))
def test_a_change_of_any_file_is_another_state(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = compiling._version.__wrapped__()
    shutil.copytree(Path(compiling.__file__).parent, tmp_path / "cpu")
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "cpu" / "compile.py"))
    assert compiling._version.__wrapped__() == before
    with (tmp_path / "cpu" / name).open("a") as file:
        file.write("# changed\n")
    assert compiling._version.__wrapped__() != before


def double(x: int) -> int:
    return 2 * x


def test_the_state_is_part_of_the_file_s_name():
    compiling.entry(double, "int64(int64)")
    assert double.__qualname__ == f"double_{compiling._version()}"


def test_without_a_folder_that_can_be_written_it_compiles_and_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.warns(UserWarning, match="compiled anew by every process .* set NUMBA_CACHE_DIR"):
        made = compiling.entry(double, "int64(int64)")
    assert made(4) == 8


def test_the_settings_of_numba_are_those_of_before(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(config, "SLP_VECTORIZE", 0)
    during: list[int] = []
    monkeypatch.setattr(compiling, "_compiled", lambda function, *_, **__: during.append(vars(config)["SLP_VECTORIZE"]))
    compiling.entry(double, "int64(int64)")
    assert during == [1]
    assert vars(config)["SLP_VECTORIZE"] == 0


def test_arrays_of_another_type_are_not_read_as_if():
    with pytest.raises(TypeError, match="No matching definition"):
        cpu._entry("boxes")(*[torch.zeros(1, dtype=torch.float64).numpy()] * 7)


def test_memory_is_taken_by_the_call_and_not_by_the_view():
    make(2)
    torch.set_num_threads(1)
    before = _nrt_python.memsys_stats_enabled()
    _nrt_python.memsys_enable_stats()
    try:
        taken = []
        for batch in (2, 64):
            start = rtsys.get_allocation_stats().mi_alloc
            make(batch)
            taken.append(rtsys.get_allocation_stats().mi_alloc - start)
    finally:
        if not before:
            _nrt_python.memsys_disable_stats()
    assert taken[0] == taken[1] > 0


@pytest.mark.parametrize("count", [0, 1, 7, 8, 1000])
def test_threads_share_all_of_the_work_once(count: int):
    torch.set_num_threads(4)
    done: list[int] = []
    threads.share(lambda begin, end: done.extend(range(begin, end)), count, 2)
    assert sorted(done) == list(range(count))


def test_what_is_little_stays_in_the_thread_that_asks():
    torch.set_num_threads(4)
    where: set[int] = set()
    threads.share(lambda _begin, _end: where.add(threading.get_ident()), 19, 10)
    assert where == {threading.get_ident()}


@pytest.mark.parametrize("in_the_caller", [True, False])
def test_an_error_in_any_thread_is_raised(in_the_caller: bool):
    torch.set_num_threads(2)
    caller, both = threading.get_ident(), threading.Barrier(2)

    def work(begin: int, _end: int) -> None:
        if begin < 2:  # the first two of the eight pieces: one for each thread
            both.wait(30)
            if (threading.get_ident() == caller) == in_the_caller:
                raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError, match="broken"):
        threads.share(work, 8, 1)
