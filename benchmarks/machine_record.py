"""What ran a benchmark: written beside each of its numbers, so that two rows can be compared or told apart."""

import platform
import subprocess
from pathlib import Path

import numpy
import torch

from ssl_framework import machine

Record = dict[str, str | int | None]


def record() -> Record:
    """Processor, cores, bf16 unit, GPU, versions and commit.

    Returns:
        Plain values: ``processor``; ``cores`` that this process may use and ``threads`` of torch; ``precision`` that
        "auto" takes on the CPU, with its reason (the bf16 unit, if there is one); ``gpu`` or None; ``torch``, ``numpy``,
        ``python``; ``commit`` of the checkout, "-dirty" behind it if files differ, None outside of one.
    """
    chosen = machine.precision("cpu")
    return {
        "processor": _processor(),
        "cores": machine.cores(),
        "threads": torch.get_num_threads(),
        "precision": f"{chosen.name}: {chosen.reason}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _processor() -> str:
    """Name, family and model: virtual machines often hide the full name."""
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in information.read_text().split("\n\n")[0].splitlines() if ":" in line)
    known = {name.strip(): value.strip() for name, value in fields.items()}
    numbers = ", ".join(f"{name} {known[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in known)
    return f"{known.get('model name', platform.machine())}{f' ({numbers})' if numbers else ''}"


def _commit() -> str | None:
    asked = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git
        return None
    return done.stdout.strip() if done.returncode == 0 else None
