"""Help, made from the configuration files, so that it cannot be out of date."""

import re
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from ssl_framework.commands import VERBS, explain
from ssl_framework.commands.compose import DATA_ROOT
from ssl_framework.paths import conf_dir

OPTIONS = """options:
  --help, -h         this page
  --multirun, -m     run every combination of the values given with commas, each in a folder of its own
  --cfg              print the configuration and do nothing
  --traceback        show where in the code an error arose

exit codes: 0 done; 1 the program failed, or check found what must be mended; 2 something on the command line or in
the data is wrong; 75 stopped by a signal, all is saved; 130 stopped by Ctrl-C
"""


def overview() -> str:
    """The verbs, one line each."""
    lines = [f"  {verb:<12} {what}" for verb, what in VERBS.items()]
    return "\n".join(
        ["usage: ssl-framework VERB key=value ...", "", *lines, "", "ssl-framework VERB --help lists its groups and keys.", ""]
    )


def page(verb: str, cfg: DictConfig) -> str:
    """The groups of a verb with their choices, then its keys.

    Args:
        verb: a verb.
        cfg: its composed configuration, whose keys and values are shown.
    """
    groups = explain.groups_of(verb)
    chosen = cfg.hydra.runtime.choices
    lines = [f"usage: ssl-framework {verb} key=value ...", "", VERBS[verb], "", "groups (group=choice; * is chosen):"]
    for group, folder in groups.items():
        marked = [f"*{c}" if chosen.get(group) == c else c for c in explain.choices_in(folder)]
        lines.append(f"  {group:<20} {' '.join(marked)}")
    lines += ["", "keys (key=value):", *_keys(verb, cfg), "", OPTIONS]
    return "\n".join(lines)


def _keys(verb: str, cfg: DictConfig) -> list[str]:
    comments = _comments(verb, dict(cfg.hydra.runtime.choices))
    lines: list[str] = []
    for key in explain.keys_in(cfg):
        parent, last = _parent(cfg, key)
        value = cast(dict[str, object], OmegaConf.to_container(parent, resolve=False))[last]
        if isinstance(value, dict) or last.startswith("_") or key in ("run.words", "run.verb", "run.choices"):
            continue
        shown = "null" if value is None else "(must be given)" if value == "???" else str(value)
        line = f"  {key}={'$' + DATA_ROOT if key == 'data_root' else shown}"
        lines.append(f"{line:<46} {comments[key]}" if key in comments else line)
    return lines


def _parent(cfg: DictConfig, key: str) -> tuple[DictConfig, str]:
    parent, _, last = key.rpartition(".")
    return (OmegaConf.select(cfg, parent) if parent else cfg), last


def _comments(verb: str, choices: dict[str, str]) -> dict[str, str]:
    """What the comments in the files say of their keys: ``seed: 0  # one number ...``."""
    comments: dict[str, str] = {}
    for group, choice in choices.items():
        for name in ("default", choice):  # most choices of some groups build on `default`
            file = conf_dir() / group / f"{name}.yaml"
            if file.is_file() and not file.read_text().startswith("# @package"):
                comments.update({f"{group}.{key}": text for key, text in _comments_in(file).items()})
    for name in ("base", verb):
        comments.update(_comments_in(conf_dir() / f"{name}.yaml"))
    return comments


def _comments_in(file: Path) -> dict[str, str]:
    comments: dict[str, str] = {}
    parent = ""
    for line in file.read_text().splitlines():
        if not (found := re.match(r"( *)(\w+):([^#]*)(?:# (.*))?$", line)):
            continue
        indent, key, value, comment = found.groups()
        if not indent and not value.strip():
            parent = f"{key}."
        elif comment:
            comments[f"{parent if indent else ''}{key}"] = comment
    return comments
