"""What numbers of the settings may be, and the encoder that must be there: said before anything slow is imported."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssl_framework.commands.compose import Settings

Rule = tuple[Callable[[Any], bool], str]


def _number(
    low: float, high: float = math.inf, *, above: bool = False, whole: bool = False, below: bool = False, null: bool = False
) -> Rule:
    """A rule for a number, and what is said of it."""

    def good(value: Any) -> bool:
        if value is None:
            return null
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or math.isnan(value):
            return False
        return (value > low if above else value >= low) and (value < high if below else value <= high)

    kind = "a whole number" if whole else "a number"
    start = f"above {low:g}" if above else f"from {low:g}"
    end = "" if high == math.inf else f" {'to below' if below else 'to'} {high:g}"
    return good, f"{kind} {start}{end}{', or null' if null else ''}"


_RULES: dict[str, dict[str, Rule]] = {
    "trainer": {
        "num_nodes": _number(1, whole=True),
        "max_epochs": _number(0, above=True, null=True),
        "max_steps": _number(1, whole=True, null=True),
        "accumulate_grad_batches": _number(1, whole=True),
        "gradient_clip_val": _number(0, above=True, null=True),
        "val_check_interval": _number(0, whole=True, null=True),
        "limit_val_batches": _number(0, null=True),
        "checkpoint_every_n_steps": _number(0, whole=True, null=True),
        "keep_checkpoints": _number(1, whole=True),
        "log_every_n_steps": _number(0, whole=True),
        "data_timeout": _number(0, above=True),
        "step_timeout": _number(0, above=True),
    },
    "data": {
        "batch_size": _number(1, whole=True),
        "workers": _number(0, whole=True, null=True),
        "val_share": _number(0, 1, below=True),
        "test_share": _number(0, 1, below=True, null=True),
        "split_seed": _number(0, whole=True),
        "channels": (lambda value: value is None or (type(value) is int and value in (1, 3)), "1, 3 or null"),
    },
    "pretext": {"mask_ratio": _number(0, 1, below=True)},
    "": {"seed": _number(0, 2**32 - 1, whole=True), "batch_size": _number(1, whole=True)},
}  # fmt: skip


def check(settings: Settings) -> None:
    """Refuse numbers that are out of their range.

    Args:
        settings: of `compose(verb, ...)`, or of a run folder.

    Raises:
        ValueError: a value of the wrong kind or out of range; the message names key, value and what is allowed.
    """
    for name, rules in _RULES.items():
        for node in (name, "labelled_data") if name == "data" else (name,):
            values = settings if node == "" else settings.get(node) or {}
            if not isinstance(values, dict):
                raise ValueError(f"{node}={shown(values)}: must be keys and their values.")
            for key, (good, words) in rules.items():
                if key in values and not good(values[key]):
                    raise ValueError(f"{f'{node}.{key}' if node else key}={shown(values[key])}: must be {words}.")


def require_encoder(settings: Settings) -> None:
    """Refuse to begin with an encoder that is not there.

    Args:
        settings: of `compose(verb, ...)`.

    Raises:
        ValueError: nothing is at its path.
    """
    file = settings.get("encoder_file")
    if isinstance(file, str) and "://" not in file and settings.get("resume") is None and not Path(file).exists():
        raise ValueError(f"encoder_file={file} does not exist: give a run folder, its encoder.yaml or its encoder.safetensors.")


def shown(value: Any) -> str:
    """A value as the command line has it, or the beginning of a long one."""
    return "null" if value is None else str(value)[:200]
