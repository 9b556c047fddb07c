"""From the words of a command line to one configuration, with Hydra underneath and its mistakes put into one sentence."""

import itertools
import math
import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from ssl_framework.commands import explain, strangers
from ssl_framework.paths import conf_dir

Settings = dict[str, Any]
"""A resolved configuration: plain containers only."""

DATA_ROOT = "SSL_FRAMEWORK_DATA"
INHERITED = "resume", "from_run"  # keys whose run lends its own words to the command line
NOT_LENT = "run.dir", "resume", "from_run", "allow_target", "hydra."  # words that belong to one run only

_LEAST = 10_000_000  # bytes that a run folder needs at the least
_PLACE = "accelerator", "devices", "num_nodes", "strategy", "sync_batchnorm"  # keys of `trainer` that say where
_NOT_OF_THE_DATA = "_target_", "path", "seed"  # follow from the choice, from where the data lie, from the seed


@contextmanager
def configuration() -> Generator[None]:
    """Hydra, reading our `conf` folder, for as long as the block lasts; what stood there before comes back."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = before


def compose(verb: str, words: Sequence[str] = (), *, folder: str | None = None) -> Settings:
    """The settings of a run, resolved: ``compose("pretrain", ["pretext=mae", "seed=1"])``.

    Args:
        verb: a verb of the command line.
        words: its ``key=value`` words.
        folder: the run folder; ``run.dir=`` or the default where it is None.

    Raises:
        ValueError: a misspelt key, group or choice, a value of the wrong kind, a missing value; the message has the nearest
            right one.
    """
    words = inherited(verb, words)
    return resolved(checked(verb, words), verb=verb, words=words, folder=folder)


def checked(verb: str, words: Sequence[str]) -> DictConfig:
    """Compose once, without running anything, to find what is wrong with the words; with the node `hydra`.

    Words of a sweep are tried with the first of their values, after all values were checked.
    """
    overrides = explain.parse(words)
    groups = explain.groups_of(verb)
    explain.check_choices(overrides, verb)
    single = [first_of(o) for o in overrides]
    choices = [w for w, o in zip(single, overrides, strict=True) if explain.is_choice(o, groups)]
    with configuration():
        plain = _compose(verb, choices)
        if views := suited_views(plain, words):
            single.append(views)
            plain = _compose(verb, [*choices, views])
        explain.check_keys(verb, overrides, plain, groups)
        return _compose(verb, single)


def suited_views(cfg: DictConfig, words: Sequence[str]) -> str | None:
    """The word that replaces a pretext's views on data that they would spoil, as `views_for` of the configuration says.

    None where the user chose views, or nothing is to be replaced.
    """
    if any(w.startswith("views=") for w in words) or "views_for" not in cfg:
        return None
    chosen = cfg.hydra.runtime.choices
    better = (cfg.views_for.get(chosen.data) or {}).get(chosen.views)
    return f"views={better}" if better else None


def _compose(verb: str, words: list[str]) -> DictConfig:
    try:
        return hydra.compose(verb, words, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{' '.join(words) or verb}: {explain.first_line(error)}") from error


def first_of(override: Override) -> str:
    """The word itself, or with the first value of its sweep."""
    if not override.is_sweep_override() or not override.is_discrete_sweep():
        return cast(str, override.input_line)
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def resolved(cfg: DictConfig, *, verb: str, words: Sequence[str], folder: str | None = None) -> Settings:
    """Plain settings: interpolations done, the data root filled in, nothing missing.

    Args:
        cfg: what Hydra composed, with its own node.
        verb: the verb, which is written down.
        words: the words of the command line, which are written down and lent to `resume` and `from_run`.
        folder: the run folder; `run.dir` or its default where it is None.

    Raises:
        ValueError: a value that has no default was not given.
    """
    choices = {k: v for k, v in cfg.hydra.runtime.choices.items() if not k.startswith("hydra/")}
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.pop("hydra", None)
        if OmegaConf.is_missing(cfg, "data_root") and os.environ.get(DATA_ROOT):
            cfg.data_root = os.environ[DATA_ROOT]
        cfg.run.dir = folder or cfg.run.dir or default_folder(verb, choices)
        cfg.run.verb = verb
        cfg.run.choices = choices
        cfg.run.words = [w for w in words if not w.startswith("hydra")]
        for key in set(cfg) - explain.nodes_of(verb):
            cfg.pop(key)  # debug=short speaks of every verb's keys
    try:
        settings = cast(Settings, OmegaConf.to_container(cfg, resolve=True))
    except InterpolationToMissingValueError as error:
        raise ValueError(
            f"{error.full_key} is not known: give {error.full_key}=PATH, or data_root=FOLDER that holds the data sets, "
            f"or set {DATA_ROOT}."
        ) from error
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key}: {explain.first_line(error)}") from error
    if settings["data_root"] == "???":
        settings["data_root"] = None
    missing = sorted(OmegaConf.missing_keys(OmegaConf.create(settings)))
    if missing:
        raise ValueError(f"{missing[0]} has no default: give {missing[0]}=...{explain.hint_of(verb, missing[0])}")
    return settings


def default_folder(verb: str, choices: dict[str, str]) -> str:
    """``runs/VERB/DATE_TIME-PRETEXT-DATA``, as far as the verb has them."""
    now = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    names = [str(choices[group]) for group in ("pretext", "data") if choices.get(group)]
    return str(Path("runs", verb, "-".join([now, *names])))


def inherited(verb: str, words: Sequence[str]) -> list[str]:
    """The words, after those of the run that ``resume=RUN`` or ``from_run=RUN`` names: the user's own come last and win.

    ``resume`` and pretrain's ``from_run`` take all words of that run; the other verbs take its data only, and its encoder.

    Raises:
        ValueError: there is no run in that folder, or it belongs to another verb.
    """
    given = dict(w.split("=", 1) for w in words if w.startswith(tuple(f"{key}=" for key in INHERITED)))
    given = {key: unquoted(value) for key, value in given.items() if unquoted(value) not in ("null", "")}
    if not given:
        return list(words)
    if len(given) > 1:
        raise ValueError("resume= continues a run and from_run= begins another one: give one of them.")
    ((key, folder),) = given.items()
    saved = saved_settings(folder, key, _allowed(words))
    if key == "resume" and saved["run"]["verb"] != verb:
        raise ValueError(f"resume={folder}: that is a run of `{saved['run']['verb']}`, not of `{verb}`.")
    data_only = key == "from_run" and verb != "pretrain"
    others = data_only and any(w.startswith("data=") for w in words)
    taken = [] if others else _data_of(saved, words_of(saved)) if data_only else words_of(saved)
    lent = strangers.lent(taken, key, folder, words)
    if data_only and not any(w.startswith("encoder_file=") for w in words):
        lent.append(f"encoder_file={quoted(folder)}")
    return latest([w for w in lent if not _overruled(w, words, saved["run"]["choices"])] + list(words))


def automatic(words: Sequence[str]) -> list[str]:
    """The words with ``resume=auto`` decided: a run that ``run.dir=`` holds goes on, and where there is none, it begins.

    So one command is right for a job that is started again whenever it was stopped. A run that was stopped before its first
    checkpoint begins again; what it wrote is kept in ``FOLDER.unsaved-N``.

    Raises:
        ValueError: there is no ``run.dir=``.
    """
    if "resume=auto" not in words:
        return list(words)
    folder = next((unquoted(word.removeprefix("run.dir=")) for word in reversed(words) if word.startswith("run.dir=")), None)
    if folder is None:
        raise ValueError("resume=auto needs run.dir=FOLDER: the run that goes on is the one in there.")
    rest = [word for word in words if word != "resume=auto"]
    home = Path(folder)
    if not (home / "config.yaml").is_file():
        return rest
    if any((home / "checkpoints").glob("step-*.json")):
        return [*(word for word in rest if not word.startswith("run.dir=")), f"resume={quoted(folder)}"]
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        number = next(n for n in itertools.count(1) if not Path(f"{home}.unsaved-{n}").exists())
        home.rename(f"{home}.unsaved-{number}")
    return rest


def _allowed(words: Sequence[str]) -> list[str]:
    """What ``allow_target=`` names."""
    given = next((word.split("=", 1)[1] for word in reversed(words) if word.startswith("allow_target=")), "[]")
    found = yaml.safe_load(given)
    return [str(name) for name in (found if isinstance(found, list) else [found])]


def _data_of(saved: Settings, words: Sequence[str]) -> list[str]:
    """The words that choose the data of a run, also where its experiment chose them and no word did."""
    said = [w for w in words if w.startswith(("data.", "data_root="))]
    choices = saved["run"]["choices"]
    kept = [] if choices.get("experiment") is None else [key for key in saved["data"] if key not in _NOT_OF_THE_DATA]
    set_by_experiment = [f"data.{key}={_word(saved['data'][key])}" for key in kept]
    return latest([f"data={choices['data']}", *set_by_experiment, *said])


def _word(value: Any) -> str:
    """A plain value as Hydra reads it."""
    if isinstance(value, str):
        return quoted(value)
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).splitlines()[0]


def latest(words: Sequence[str]) -> list[str]:
    """The words without those that a later one of the same key repeals: ``~logger``, too, where ``logger=csv`` follows."""
    return list({word.split("=", 1)[0].lstrip("~"): word for word in words}.values())


def _overruled(lent: str, words: Sequence[str], choices: dict[str, str]) -> bool:
    """Whether a lent ``group.key=`` belongs to a choice that the user replaces by ``group=other``.

    The choices of `trainer` share their keys: another one changes where a run is trained, and never for how long.
    """
    node, dot, key = lent.split("=", 1)[0].partition(".")
    if node == "trainer" and key not in _PLACE:
        return False
    return bool(dot) and any(w.startswith(f"{node}=") and w != f"{node}={choices.get(node)}" for w in words)


def words_of(saved: Settings) -> list[str]:
    """The words that a run was made with, without those that belong to that run alone."""
    return [w for w in saved["run"]["words"] if not w.startswith(NOT_LENT)]


def saved_settings(folder: str | Path, key: str = "resume", allowed: Sequence[str] = ()) -> Settings:
    """The settings that a run folder was made with, which may be a stranger's.

    Args:
        folder: of the run.
        key: of the user's word that named it, for messages.
        allowed: names of the user's own that it may call.

    Raises:
        ValueError: no run folder, or one that says what none of ours says.
    """
    file = Path(folder) / "config.yaml"
    if not file.is_file():
        raise ValueError(f"{key}={folder}: no config.yaml there. Give the folder of a run{_newest()}.")
    saved = strangers.read(file, allowed)
    if not isinstance(saved, dict) or not _written_by_us(saved.get("run")):
        raise ValueError(f"{key}={folder}: {file} was not written by this program.")
    return strangers.inward(saved)


def _written_by_us(run: Any) -> bool:
    kinds = {"words": list, "choices": dict, "verb": str}
    return isinstance(run, dict) and all(isinstance(run.get(key), kind) for key, kind in kinds.items())


def refuse_used(folder: Path) -> None:
    """Stop before a run writes among the files of another.

    Raises:
        ValueError: there is something in the folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        resume = f", or resume={folder} to continue that run" if (folder / "checkpoints").is_dir() else ""
        raise ValueError(f"run.dir={folder} is not empty: give another folder{resume}.")


def require_writable(folder: Path) -> None:
    """Stop before anything is read, where nothing could be written.

    Raises:
        ValueError: a file is in the way, the folder is not writable, or the disk is full.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise ValueError(f"run.dir={folder}: {there} is a file, and a folder is needed. Give another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"run.dir={folder}: {there} cannot be written into. Give another folder, or make it writable.")
    free = shutil.disk_usage(there).free
    if free < _LEAST:
        raise ValueError(
            f"run.dir={folder}: the disk has {free:,} free bytes, and a run needs {_LEAST:,} at the least. Free some, or "
            "give a folder on another disk."
        )


def _newest() -> str:
    runs = sorted(Path("runs").glob("*/*/config.yaml"), key=lambda file: file.stat().st_mtime)
    return f", for example {runs[-1].parent}" if runs else ""


def quoted(text: str) -> str:
    """A value that Hydra reads back as the same text, whatever is in it."""
    return "'" + text.replace("'", "\\'") + "'"


def unquoted(text: str) -> str:
    """A value without the quotes that Hydra would take away."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
