"""What the machine is said to be fast at, and that asking leaves no trace but the one asked for."""

import copy
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_framework import machine


def _processor(monkeypatch: pytest.MonkeyPatch, amx: bool, bfloat16: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bfloat16)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.mark.parametrize(
    ("amx", "bfloat16", "name", "reason"),
    [(True, True, "bf16-mixed", "AMX"), (False, True, "bf16-mixed", "AVX512-bf16"), (False, False, "32-true", "no bfloat16")],
)
def test_a_processor_trains_in_bfloat16_if_it_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, bfloat16: bool, name: str, reason: str
) -> None:
    _processor(monkeypatch, amx, bfloat16)
    chosen = machine.precision("cpu")
    assert chosen.name == name
    assert reason in chosen.reason


@pytest.mark.parametrize(
    ("bfloat16", "capability", "name"),
    [(True, (8, 0), "bf16-mixed"), (False, (7, 5), "16-mixed"), (False, (6, 1), "32-true")],
)
def test_a_gpu_trains_in_what_its_tensor_cores_take(
    monkeypatch: pytest.MonkeyPatch, bfloat16: bool, capability: tuple[int, int], name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16 or including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert machine.precision("cuda:0").name == name


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({}, 64),
    ],
)
def test_cores_are_within_the_quota_of_the_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], quota: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert machine.cores() == quota


def test_threads_only_ever_go_down(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(machine, "cores", lambda: 64)
        torch.set_num_threads(1)
        assert machine.limit_threads() == 1
        monkeypatch.setattr(machine, "cores", lambda: 2)
        torch.set_num_threads(5)
        assert machine.limit_threads() == torch.get_num_threads() == 2
        assert machine.limit_threads(processes=2) == 1
        assert machine.limit_threads(processes=9) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("side", [1, 2, 3, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (7, 2), (4, 4)])
def test_weight_gradients_of_small_maps_are_right_in_bfloat16(side: int, kernel: int, stride: int) -> None:
    """torch leaves some of them uninitialised: the memory is filled with large numbers first, so that it is seen."""
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(32, 64, kernel, stride, padding=kernel // 2)
    machine.guard_convolutions(convolution)
    machine.guard_convolutions(convolution)  # once is enough
    assert len(convolution._forward_pre_hooks) == 1
    weight = convolution.weight
    for _ in range(4):
        x = torch.randn(16, 32, side, side).to(memory_format=torch.channels_last)
        (exact,) = torch.autograd.grad(convolution(x).square().sum(), weight)
        dirty = [torch.full((64 * 32 * kernel * kernel,), 1e9, dtype=dtype) for dtype in (torch.bfloat16, torch.float32) * 4]
        del dirty
        with torch.autocast("cpu", torch.bfloat16):
            out = convolution(x)
            assert torch.is_autocast_enabled("cpu")
        assert out.dtype == (torch.float32 if side < kernel else torch.bfloat16)
        (found,) = torch.autograd.grad(out.float().square().sum(), weight)
        assert (found - exact).norm() < 0.02 * exact.norm()


def test_guarded_convolutions_come_back_to_bfloat16_after_an_error_and_in_copies() -> None:
    convolution = torch.nn.Conv2d(4, 4, 3, 2)  # without padding: a map of one pixel is an error
    machine.guard_convolutions(convolution)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
            copy.deepcopy(convolution)(torch.zeros(1, 4, 1, 1))
        assert torch.is_autocast_enabled("cpu")
    assert "left_bfloat16" not in vars(convolution)


def test_a_guarded_convolution_takes_an_input_without_a_batch() -> None:
    convolution = torch.nn.Conv2d(4, 4, 3, 2, padding=1)
    machine.guard_convolutions(convolution)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution(torch.zeros(4, 1, 8)).dtype == torch.float32  # one row: smaller than the kernel
        assert convolution(torch.zeros(4, 8, 8)).dtype == torch.bfloat16


GB = 1 << 30


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 20 * GB),
        ({"memory.max": "max", "memory.current": "5"}, 20 * GB),
        ({"memory.max": f"{8 * GB}", "memory.current": f"{7 * GB}"}, GB),
        (
            {"memory.max": f"{8 * GB}", "memory.current": f"{7 * GB}", "memory.stat": f"anon 5\ninactive_file {6 * GB}\n"},
            7 * GB,
        ),
        (
            {
                "memory/memory.limit_in_bytes": f"{8 * GB}",
                "memory/memory.usage_in_bytes": f"{7 * GB}",
                "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {5 * GB}\n",
            },
            6 * GB,
        ),
        ({"memory.max": f"{80 * GB}", "memory.current": "0"}, 20 * GB),
    ],
)
def test_free_memory_is_within_the_limit_of_the_container_and_files_that_were_read_do_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], free: int
) -> None:
    for name, text in {**files, "meminfo": f"MemTotal: 1 kB\nMemAvailable: {20 * GB // 1024} kB\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    assert machine.free_memory(torch.device("cpu")) == free


@pytest.mark.parametrize("most", [1 << 30, 32 << 20, 0])
def test_older_allocators_take_a_smaller_number(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    said: list[tuple[int, int]] = []

    class Library:
        def __init__(self, name: object) -> None:
            del name

        def mallopt(self, option: int, value: int) -> int:
            taken = option == machine._M_TRIM_THRESHOLD or value <= most
            if taken:
                said.append((option, value))
            return int(taken)

    monkeypatch.setattr(machine.ctypes, "CDLL", Library)
    monkeypatch.setattr(machine.platform, "libc_ver", lambda: ("glibc", "2.28"))
    assert machine.keep_freed_memory() is bool(most)
    assert (machine._M_TRIM_THRESHOLD, -1) in said
    assert [value for option, value in said if option == machine._M_MMAP_THRESHOLD] == ([most] if most else [])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_stays_with_the_process() -> None:
    script = """
import resource, sys, numpy
from ssl_framework import machine
if sys.argv[1] == "keep":
    assert machine.keep_freed_memory()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones(100_000_000, numpy.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", script, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("keep", "give back")
    }
    assert faults["keep"] < 10 < faults["give back"]


@pytest.mark.parametrize(
    ("tokens", "dtype", "autocast", "faster"),
    [
        (197, torch.bfloat16, False, True),
        (197, torch.float32, True, True),
        (197, torch.float32, False, False),
        (1025, torch.bfloat16, False, False),
    ],
)
def test_attention_is_plain_for_short_sequences_in_bfloat16(
    tokens: int, dtype: torch.dtype, autocast: bool, faster: bool
) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert machine.plain_attention_is_faster(torch.zeros(1, tokens, 4, dtype=dtype)) is faster
    assert not machine.plain_attention_is_faster(torch.zeros(1, 5, 4, dtype=torch.bfloat16, device="meta"))
