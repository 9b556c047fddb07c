"""What is wrong with a command line, said in one sentence with the nearest right word."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from ssl_framework.paths import conf_dir

HINTS = {
    "encoder_file": ": a run folder or an encoder.yaml",
    "data.path": ": where the data lies",
}

_WORDS = {
    "cut": ("auto",),
    "trainer.compile": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
}
"""Words that a key with a number, or with true and false, takes as well."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was most likely meant to be."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return found[0] if found else None


def did_you_mean(word: str, choices: Sequence[str], what: str = "Choices") -> str:
    """``Did you mean x?`` or, where nothing is near, all the choices."""
    near = nearest(word, choices)
    return f"Did you mean {near}?" if near else f"{what}: {', '.join(choices)}."


def first_line(error: BaseException) -> str:
    """An error of Hydra's or OmegaConf's without its appendix."""
    return str(error).strip().split("\n")[0].rstrip(".") + "."


def hint_of(verb: str, key: str) -> str:
    """What to give for a key that has no default."""
    return HINTS.get(key, f"; see `ssl-framework {verb} --help`.")


BARE = {"report": "runs", "reproduce": "row", "replay": "run_folder"}
"""Verbs that take words without a key, and the key that these are of."""


def keyed(verb: str, words: Sequence[str]) -> list[str]:
    """The words, with ``RUN`` of ``report RUN`` written out as ``runs=[RUN]``."""
    bare = [word for word in words if "=" not in word and not word.startswith("~")]
    if verb not in BARE or not bare:
        return list(words)
    quoted = ["'" + word.replace("'", "\\'") + "'" for word in bare]
    value = f"[{','.join(quoted)}]" if verb == "report" else quoted[0]
    if verb != "report" and len(bare) > 1:
        raise ValueError(f"{bare[1]}: {verb} takes one {BARE[verb]} at a time.")
    return [*(word for word in words if word not in bare), f"{BARE[verb]}={value}"]


def parse(words: Sequence[str]) -> list[Override]:
    """The words as Hydra reads them.

    Raises:
        ValueError: a word that is not ``key=value``.
    """
    parser = OverridesParser.create()
    overrides: list[Override] = []
    for word in words:
        if "=" not in word and not word.startswith("~"):
            raise ValueError(f"{word}: cannot be read; write key=value.")
        try:
            overrides += parser.parse_overrides([word])
        except OverrideParseException as error:
            key, value = word.split("=", 1)
            raise ValueError(f"""{word}: cannot be read; put the value in quotes of its own: '{key}="{value}"'.""") from error
    return overrides


def choices_in(group: str) -> list[str]:
    """The files of a group's folder."""
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))


def groups_of(verb: str) -> dict[str, str]:
    """The groups that a verb chooses from: what is written before ``=`` and its folder (``data@labelled_data``: ``data``)."""
    groups: dict[str, str] = {}
    for entry in defaults_of(verb):
        for name in entry:
            group = name.removeprefix("optional ").removeprefix("override ")
            if not group.startswith("hydra/"):
                groups[group] = group.split("@")[0]
    return groups


def defaults_of(verb: str) -> list[dict[str, str | None]]:
    """The entries of a verb's defaults list that choose from a group."""
    entries = _plain(verb).get("defaults", [])
    return [cast(dict[str, str | None], entry) for entry in entries if isinstance(entry, dict)]


def nodes_of(verb: str) -> set[str]:
    """The top-level keys of a verb: its own, those of ``base.yaml``, and the nodes that its groups fill."""
    own = {key for name in ("base", verb) for key in _plain(name)}
    return (own - {"defaults"}) | {group.split("@")[-1] for group in groups_of(verb)}


def _plain(name: str) -> dict[str, Any]:
    return yaml.safe_load((conf_dir() / f"{name}.yaml").read_text()) or {}


def is_choice(override: Override, groups: dict[str, str]) -> bool:
    """Whether the word chooses a file of a group or speaks to Hydra, and does not set a value."""
    key = override.get_key_element().lstrip("+~")
    return key in groups or key.startswith(("hydra.", "hydra/")) or "@" in key


def values_of(override: Override) -> list[Any]:
    """The value, or all values of a sweep."""
    if override.is_sweep_override() and override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    return [override.value()]


def check_choices(overrides: Sequence[Override], verb: str | None = None) -> None:
    """Check the words that choose.

    Args:
        overrides: words.
        verb: which they are said to, if it is known.

    Raises:
        ValueError: a choice that its group does not have, or nothing chosen where something must be.
    """
    defaults = {name: choice for entry in (defaults_of(verb) if verb else ()) for name, choice in entry.items()}
    for override in overrides:
        key = override.get_key_element().lstrip("+~")
        group = key.split("@")[0]  # data@elsewhere chooses from data, too
        if not (conf_dir() / group).is_dir() and not group.startswith("hydra/"):
            continue
        choices = choices_in(group)
        if override.is_delete():
            if defaults.get(key) is not None and key not in ("monitors", "logger"):  # may be none
                raise ValueError(f"{override.input_line}: {verb} needs {key}. Choices: {', '.join(choices)}.")
            continue
        for value in values_of(override):
            if value in (None, "null"):
                optional = key in defaults and defaults[key] is None
                remedy = f"To leave it out: ~{key}" if optional else f"Choices: {', '.join(choices) or 'see Hydra'}."
                raise ValueError(f"{override.input_line}: null chooses nothing. {remedy}")
            if not group.startswith("hydra/") and value not in choices:
                raise ValueError(f"{key}={value}: {key} has no such choice. {_choice_remedy(key, str(value), choices)}")


def _choice_remedy(key: str, value: str, choices: list[str]) -> str:
    if "/" in value or Path(value).exists():
        if key == "encoder":
            return f"To load an encoder from a file: encoder_file={value}"
        if key == "data":
            return f"To read images from a folder: data=folder data.path={value}"
    return did_you_mean(value, choices)


def check_keys(verb: str, overrides: Sequence[Override], plain: DictConfig, groups: dict[str, str]) -> None:
    """Check the words that set values against a configuration in which only the choices were made.

    Raises:
        ValueError: an unknown key, or a word where a number or a yes or no belongs.
    """
    for override in overrides:
        key = override.key_or_group
        if is_choice(override, groups) or override.is_add() or override.is_force_add():
            continue
        if not _has(plain, key):
            raise ValueError(f"{override.input_line}: {verb} has no key {key}. {_key_remedy(key, plain, groups)}")
        if override.is_delete():
            continue
        default = OmegaConf.select(plain, key, throw_on_resolution_failure=False)
        if isinstance(default, DictConfig) and not isinstance(override.value(), dict | None):
            raise ValueError(f"{override.input_line}: {key} is not one value. Its keys: {', '.join(map(str, default))}.")
        for value in values_of(override):
            _check_kind(key, value, default, sweep=override.is_sweep_override())


def _check_kind(key: str, value: Any, default: Any, *, sweep: bool) -> None:
    if sweep:
        value = yaml.safe_load(str(value))
    wrong = isinstance(value, str) and not value.startswith("${")
    if not wrong or value in _WORDS.get(key, ()):
        return
    words = "".join(f", or {word}" for word in _WORDS.get(key, ()))
    if isinstance(default, bool):
        raise ValueError(f"{key}={value}: must be true or false{words}.")
    if isinstance(default, int | float):
        raise ValueError(f"{key}={value}: must be a number, such as {default}{words}.")


def _has(cfg: DictConfig, key: str) -> bool:
    node: Any = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in list(node):  # `in` is false for a value that must be given
            return False
        node = node._get_node(part)  # pyright: ignore[reportPrivateUsage]  (the only access that neither resolves nor raises)
    return True


def keys_in(node: Any, prefix: str = "") -> list[str]:
    """All keys of a configuration, with dots, except Hydra's own."""
    if not isinstance(node, DictConfig):
        return []
    keys: list[str] = []
    for name in map(str, node):
        if prefix == "" and name == "hydra":
            continue
        keys.append(f"{prefix}{name}")
        if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name):
            keys += keys_in(node[name], f"{prefix}{name}.")
    return keys


def _key_remedy(key: str, plain: DictConfig, groups: dict[str, str]) -> str:
    keys = [k for k in keys_in(plain) if not k.endswith("_target_")]
    last = key.rsplit(".", 1)[-1]
    parent = key.rsplit(".", 1)[0] if "." in key else ""
    if parent and _has(plain, parent):
        brothers = [k for k in keys if k.rpartition(".")[0] == parent]
        near = nearest(last, [k.rpartition(".")[2] for k in brothers])
        return f"Did you mean {parent}.{near}?" if near else f"Keys of {parent}: {', '.join(brothers)}."
    cousins = {
        k.rpartition(".")[2]: k for k in sorted(keys, key=lambda k: -k.count("."))
    }  # of equal names the one nearest the top
    if last in cousins:
        return f"Did you mean {cousins[last]}?"
    if near := nearest(key, [*groups, *keys]):
        return f"Did you mean {near}?"
    if near := nearest(last, cousins):
        return f"Did you mean {cousins[near]}?"
    return f"Groups: {', '.join(groups)}; keys: {', '.join(k for k in keys if '.' not in k and k not in groups)}."
