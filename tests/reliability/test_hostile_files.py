"""R9: opening what a stranger made runs no code, writes nowhere else, and reaches no network, through any public reader.

Each reader has a forked child, in which it opens the files one after the other under an audit hook, with a limit of memory
and of time. In `make test` a reader opens the kinds that it is for; the slow tests open every file through every reader and
every verb.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from reliability import loaders, trial
from reliability.hostile import FILES, HTML, Hostile
from reliability.loaders import LOADERS, READ_NOTHING, VERBS, WRITE, Loader
from ssl_framework import report
from ssl_framework.commands import VERBS as ALL_VERBS
from studies import study

_OF = {".yaml": "yaml", ".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "table", ".npy": "array", ".npz": "array",
       ".safetensors": "safetensors", ".png": "image"}  # fmt: skip
_ALIKE = {"pickle": ("pickle", "zip"), "json": ("json", "yaml"), "csv": ("csv",), "yaml": ("yaml",)}


NOTHING = {"as it was": Hostile("yaml", lambda folder, file: None)}
BRIEF = {
    "load_encoder", "a sealed checkpoint", "read_metrics", "rows", "reading", "arrays", "decode", "size_of", "kind_of", "masks",
}  # fmt: skip
DEAR = ("timm_encoder", "DownstreamModule.load", "a folder of images")  # which the cheaper reader inside them stands for


def kinds(loader: Loader) -> set[str]:
    """Of the files that a reader is for."""
    own = {_OF.get(Path(slot).suffix, "pickle") for slot in (loader.default, *loader.slots.values())}
    return {"link", *(kind for one in own for kind in _ALIKE.get(one, (one, "zip") if one == "array" else (one,)))}


def natural(name: str) -> dict[str, Hostile]:
    wanted = {"link", "image"} if name in DEAR else kinds(LOADERS[name])
    return NOTHING | {one: hostile for one, hostile in FILES.items() if hostile.kind in wanted}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("good")
    loaders.good_files(home)
    return home


def faults(found: dict[str, trial.Outcome], files: dict[str, Hostile]) -> list[str]:
    missing = [f"{name} was not opened" for name in files if name not in found]
    return missing + [
        f"{name}: {outcome.end}, {outcome.traces}, {outcome.said[-300:]}"
        for name, outcome in found.items()
        if outcome.traces or outcome.end == "strange"
    ]


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in BRIEF else pytest.mark.slow) for name in LOADERS])
def test_a_reader_leaves_no_trace_and_says_what_is_wrong(
    name: str, good: Path, tmp_path: Path, record_property: Callable[[str, object], None]
):
    """Of the files that it is for. One that refused the good one, too, would be no reader.

    Of torchvision's sets there are the places alone: their files are large.
    """
    found = trial.outcomes(LOADERS[name], natural(name), good, tmp_path)
    assert faults(found, natural(name)) == []
    outcome = found["as it was"]
    assert outcome.traces == []
    assert outcome.end == ("refused" if "vision" in LOADERS[name].default else "inert"), outcome.said
    record_property("promise", "R9")
    record_property("kind", "hostile file x reader that it is for")
    record_property("times", len(found) - 1)


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_a_reader_that_it_is_for(name: str):
    assert any(name in natural(one) for one in LOADERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOADERS, *VERBS])
def test_every_file_through_every_reader(name: str, good: Path, tmp_path: Path, record_property: Callable[[str, object], None]):
    assert faults(trial.outcomes({**LOADERS, **VERBS}[name], FILES, good, tmp_path), FILES) == []
    record_property("promise", "R9")
    record_property("kind", "hostile file x reader or verb")
    record_property("times", len(FILES))


UNSAFE = [name for name, hostile in FILES.items() if hostile.unsafely]


@pytest.fixture(scope="module")
def unguarded(good: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, trial.Outcome]:
    """What readers without care come to, in a child for each kind."""
    places = {"yaml": "run/config.yaml", "array": "data/images.npz", "image": "data/photos/a/0.png"}
    found: dict[str, trial.Outcome] = {}
    for kind in {FILES[name].kind for name in UNSAFE}:
        files = {name: FILES[name] for name in UNSAFE if FILES[name].kind == kind}
        loader = Loader(lambda home: None, places.get(kind, f"{loaders.STEP}.ckpt"))
        found |= trial.outcomes(loader, files, good, tmp_path_factory.mktemp("unsafe"), unsafely=True)
    return found


@pytest.mark.parametrize("name", UNSAFE)
def test_undefended_it_leaves_a_trace(
    name: str, unguarded: dict[str, trial.Outcome], record_property: Callable[[str, object], None]
):
    """The control: the files do what they are made for, and the hook sees it."""
    assert unguarded[name].traces
    record_property("promise", "R9")
    record_property("kind", "control")


def test_every_public_reader_is_among_them():
    """A new function that takes a path is opened with hostile files, or is known to read none."""
    covered = {name for loader in LOADERS.values() for name in loader.covers}
    found = loaders.takes_a_path() | {
        name for name in covered if name.startswith(("commands.build", "checkpoint.io", "encoders."))
    }
    missing = sorted(found - covered - WRITE)
    assert missing == [], f"add a Loader that covers {missing} to tests/reliability/loaders.py, or name them in WRITE"
    assert sorted((covered | WRITE) - found - {"data.masks.Masks.read", "data.cache.cache_folder"}) == []


def test_every_verb_is_among_them():
    assert {name.split()[0] for name in VERBS} | set(READ_NOTHING) == set(ALL_VERBS)


def marked(node: object) -> object:
    """A study in which every word is markup, but for those that choose what is drawn."""
    if isinstance(node, str):
        return node if node.startswith("data:") or node in ("pays", "no evidence", "above", "below") else f"{HTML}{node}"
    if isinstance(node, dict):
        return {key: marked(value) for key, value in node.items()}
    return [marked(one) for one in node] if isinstance(node, list | tuple) else node


def test_a_page_shows_names_and_runs_none(tmp_path: Path, record_property: Callable[[str, object], None]):
    told = marked({**study(seeds=2, points=20), "depth": None})
    assert isinstance(told, dict)
    page = report.write_page(
        {key: value for key, value in told.items() if value is not None}, tmp_path / "report.html"
    ).read_text()
    assert "planted()" in page
    assert "<script>planted" not in page
    assert "<img src=x" not in page
    record_property("promise", "R9")
    record_property("kind", "report about names that are scripts")
