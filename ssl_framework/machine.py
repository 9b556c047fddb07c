"""What this machine is fast at: precision, threads and memory. Known from its processor, not timed: two runs choose alike.

Nothing here acts by being imported. The commands call these functions at their start; a notebook may.
"""

import ctypes
import math
import os
import platform
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_CGROUP_MEMORY = (  # version 2, then 1
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
_KEEP_BELOW = 1 << 30, 32 << 20  # bytes: the largest block that glibc keeps; older ones take no more than the second
_NEVER_TRIM = -1
_ASSUMED_FREE = 4 << 30  # bytes, on systems that do not say
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


class Precision(NamedTuple):
    """A precision, and why it was chosen.

    Attributes:
        name: Lightning's: "bf16-mixed", "16-mixed" or "32-true".
        reason: half a sentence for people.
    """

    name: str
    reason: str


def precision(device: str | torch.device = "cpu") -> Precision:
    """The fastest precision that trains well on a device.

    bfloat16 where products of it run in hardware: Nvidia GPUs from Ampere, processors with AMX or AVX512-bf16, Arm with bf16
    instructions. Without them it is emulated and slower than float32. Older GPUs with tensor cores take float16.

    Args:
        device: where training runs.
    """
    if torch.device(device).type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16-mixed", "the GPU multiplies bfloat16 in hardware")
        if torch.cuda.get_device_capability()[0] >= 7:
            return Precision("16-mixed", "the GPU multiplies float16 in hardware, and not bfloat16")
        return Precision("32-true", "the GPU has no tensor cores")
    unit = _bfloat16_unit()
    return Precision("bf16-mixed", f"the processor has {unit}") if unit else Precision("32-true", "no bfloat16 in hardware")


def _bfloat16_unit() -> str | None:
    """What of this processor multiplies bfloat16, or None."""
    if torch.cpu._is_amx_tile_supported():  # pyright: ignore[reportPrivateUsage]  (torch has no public name for it)
        return "AMX"
    if torch.cpu._is_avx512_bf16_supported():  # pyright: ignore[reportPrivateUsage]  (torch has no public name for it)
        return "AVX512-bf16"
    information = Path("/proc/cpuinfo")
    if platform.machine() == "aarch64" and information.is_file() and " bf16" in information.read_text():
        return "Arm's bf16 instructions"
    return None


def plain_attention_is_faster(tokens: Tensor) -> bool:
    """Whether attention over ``(B, N, D)`` tokens takes less time as two plain matrix products than by torch's fused kernel.

    On CPUs in bfloat16 it does, 1.4 to 2.2 times at 50 to 2,305 tokens (AVX512-bf16, torch 2.14). Its memory grows with the
    square of the tokens, so beyond 1,024 the fused kernel is taken all the same. GPUs and float32 have good fused kernels.
    """
    on_cpu = tokens.device.type == "cpu"
    half = tokens.dtype == torch.bfloat16 or (
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )
    return on_cpu and half and tokens.shape[1] <= 1024


def guard_convolutions(module: nn.Module) -> None:
    """Have strided convolutions of maps smaller than their kernel computed in float32 on CPUs: bfloat16 would train wrongly.

    There torch 2.14 leaves the weight gradient of a 3 x 3 convolution with stride 2 uninitialised where the map is one pixel:
    whatever lay in that memory is trained on, without an error. Small maps cost nothing in float32.

    Args:
        module: whose convolutions are guarded, once each; copies of it are, too.
    """
    for child in module.modules():
        strided = isinstance(child, nn.Conv1d | nn.Conv2d | nn.Conv3d) and max(child.stride) > 1 < max(child.kernel_size)
        if strided and _leave_bfloat16 not in child._forward_pre_hooks.values():  # pyright: ignore[reportPrivateUsage]  (torch has no public name for it)
            child.register_forward_pre_hook(_leave_bfloat16)
            child.register_forward_hook(_return_to_bfloat16, always_call=True)


def _leave_bfloat16(convolution: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
    (x,) = inputs
    kernel: tuple[int, ...] = convolution.kernel_size  # pyright: ignore[reportAssignmentType]  (one number a side once built)
    sides = x.shape[-len(kernel) :]  # also of an input without a batch
    small = any(side < reach for side, reach in zip(sides, kernel, strict=True))
    if not small or x.device.type != "cpu" or not torch.is_grad_enabled() or not torch.is_autocast_enabled("cpu"):
        return None
    torch.set_autocast_enabled("cpu", False)
    convolution.left_bfloat16 = True  # pyright: ignore[reportArgumentType]  (a mark, not a parameter)
    return (x.float(),)


def _return_to_bfloat16(convolution: nn.Module, inputs: object, output: object) -> None:
    del inputs, output
    if vars(convolution).pop("left_bfloat16", False):
        torch.set_autocast_enabled("cpu", True)


def cores() -> int:
    """Processor cores that this process may use: those it is bound to, within the quota of its container."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(bound, _quota())))


def _quota() -> float:
    """Cores that the container may use (cgroup version 2, then 1); infinite without a limit."""
    one, quota, period = (_CGROUP / name for name in ("cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
    words = one.read_text().split() if one.is_file() else [f.read_text().strip() for f in (quota, period) if f.is_file()]
    if len(words) != 2 or words[0] in ("max", "-1"):
        return math.inf
    return int(words[0]) / int(words[1])


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on a device; on the host within the limit of its container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = math.inf
    if _MEMINFO.is_file():
        free = 1024 * next(int(line.split()[1]) for line in _lines(_MEMINFO) if line.startswith("MemAvailable"))
    for limit, used, detail, cached in _CGROUP_MEMORY:
        most = (_CGROUP / limit).read_text().strip() if (_CGROUP / limit).is_file() else "max"
        if most != "max" and (_CGROUP / used).is_file():
            taken = int((_CGROUP / used).read_text())
            if (_CGROUP / detail).is_file():  # the files that were read count as used, and are given up when memory is short
                taken -= next((int(n) for name, n in map(str.split, _lines(_CGROUP / detail)) if name == cached), 0)
            free = min(free, int(most) - taken)
    return int(free) if math.isfinite(free) else _ASSUMED_FREE


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def limit_threads(processes: int = 1) -> int:
    """Bring torch's threads down to the cores there are: in a container with a quota, torch counts the cores of the host.

    Args:
        processes: that share the cores.

    Returns:
        Threads that torch uses now. A smaller number that was set before (``OMP_NUM_THREADS``) stays.
    """
    torch.set_num_threads(min(torch.get_num_threads(), max(1, cores() // processes)))
    return torch.get_num_threads()


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks for the next step instead of giving them back to the system, which costs page faults.

    A training step on a CPU frees and takes the same hundreds of megabytes each time. Peak memory hardly grows, but memory that
    was freed stays with the process.

    Returns:
        Whether it was done; False where the C library is another one.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    untrimmed = libc.mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    return any(libc.mallopt(_M_MMAP_THRESHOLD, size) for size in _KEEP_BELOW) and bool(untrimmed)
