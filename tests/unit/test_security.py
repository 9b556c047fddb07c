"""What could run a stranger's code is called in as few places as there can be."""

import re
from pathlib import Path

import pytest

import ssl_framework

PACKAGE = Path(ssl_framework.__file__).parent

ONLY_IN: dict[str, set[str]] = {
    r"\btorch\.load\(": {"encoders/weights.py"},
    r"\bweights_only=True\b": {"encoders/weights.py", "commands/pretrain.py", "encoders/adapter.py"},  # Lightning passes it on
    r"\bhydra\.utils\.instantiate\(": {"commands/build.py"},
    r"\byaml\.load\(": {"reading.py"},  # with a safe loader that reads no references
    r"\bImage\.open\((?!.*formats=)": {"evaluation/robustness/corruptions.py"},  # a file that it has just written itself
    r"\bimportlib\.import_module\(": {"commands/launch.py", "encoders/build.py"},  # our verbs; names that are listed or allowed
    r"\bsubprocess\.": {"commands/folder.py", "guards/preemption.py"},  # git, and scontrol
    r"\bweights_only=False\b": {"checkpoint/training.py"},  # Trainer.save_checkpoint: what to save
    r"\bpickle\.(load|loads|Unpickler)\b": set(),
    r"\b(eval|exec)\(": set(),
    r"\byaml\.(unsafe_load|full_load)\b": set(),
    r"\ballow_pickle=True\b": set(),
    r"\btorch\.hub\b": set(),
    r"\btrust_remote_code=True\b": set(),
    r"\bregister_new_resolver\b": set(),
    r"\bos\.(system|popen|exec\w*)\(": set(),
    r"\bshell=True\b": set(),
}


@pytest.mark.parametrize("pattern", ONLY_IN)
def test_it_is_called_where_it_is_known(pattern: str):
    word = re.compile(rf"(?<![.\w]){pattern}" if pattern.startswith(r"\b(eval") else pattern)
    found = {str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if word.search(file.read_text())}
    assert found == ONLY_IN[pattern]
