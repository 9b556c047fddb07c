"""Pages that mkdocs makes from the code and the configuration, so that they cannot be out of date.

A page for each pretext task (docstring, card, YAML, code), one of what is proven of each, one of all recipes with what was
published about them, one for each configuration group and one with the verbs' own keys, one for each public package, and the
changelog and the contributor's guide from the root. Nothing generated is written into ``docs/``.
"""

import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import griffe
import promises
import proofs
import recipes
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from ssl_framework.commands import VERBS
from ssl_framework.paths import conf_dir
from ssl_framework.pretext import PretextModule

ROOT = Path(__file__).resolve().parent.parent
CONF = conf_dir()

EXPLAINED = ("design", "performance", "throughput", "catalogue", "policies", "evidence", "honesty")

PACKAGES = {
    "types": "records and protocols",
    "pretext": "phase 1: pretext tasks",
    "nn": "parts of tasks",
    "encoders": "what is pretrained",
    "data": "data sets and batches",
    "views": "augmentation",
    "run": "the Trainer",
    "optim": "optimisers",
    "checkpoint": "what a run leaves on disk",
    "monitors": "what watches a run",
    "downstream": "phase 2: transfer",
    "transfer": "whether it paid",
    "evaluation": "frozen encoders, measured",
    "probes": "classifiers on embeddings",
    "metrics": "numbers and their intervals",
    "report": "tables and pictures",
    "keyed": "randomness without state",
}
"""What users import, in the order of the story."""

GROUPS = {
    "pretext": "What is learnt from unlabelled data. Each task has [a page of its own](../tasks/index.md).",
    "encoder": "What is pretrained. `in_chans` and `img_size` follow from the data and the views.",
    "views": "How a sample is augmented. A pretext task selects views that suit it; `views=` on the command line wins.",
    "data": "What is learnt from. A key whose value is `null` is measured or taken from the data.",
    "optimizer": "How weights move. Learning rates are for a batch of 256 and are scaled to yours, as `scale_lr` says.",
    "trainer": "How long, and on which devices.",
    "monitors": "What watches the training, without touching it.",
    "task": "What phase 2 learns.",
    "freezing": "Which part of the encoder phase 2 changes.",
    "logger": "Where curves are written.",
    "experiment": "A whole recipe by one name. [What was published about each](../recipes.md).",
    "debug": "A short look at everything.",
}
"""What a group decides."""

ELSEWHERE = {"views": "ssl_framework.views.ViewSpec"}
"""Where the keys of a group are explained, if neither its targets nor what they return do it."""


WRITTEN_BY_US = {"run.verb", "run.words"}
"""Keys that no user sets."""


class Key(NamedTuple):
    """A key of a YAML file: dotted name, value as it is written, and the comment behind it."""

    name: str
    value: str
    comment: str


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation."""
    assert config.nav is not None
    tasks = [{task_class(path).__name__: f"reference/tasks/{path.stem}.md"} for path in pretext_files()]
    groups = [{group: f"reference/configuration/{group}.md"} for group in groups_on_disk()]
    packages = [{f"ssl_framework.{name}": f"reference/api/{name}.md"} for name in PACKAGES]
    config.nav += [
        {"Pretext tasks": ["reference/tasks/index.md", *tasks]},
        {"Proofs": "reference/proofs.md"},
        {"Promises": "reference/promises.md"},
        {"Recipes": "reference/recipes.md"},
        {"Configuration": ["reference/configuration/index.md", *groups]},
        {"Python": ["reference/api/index.md", *packages]},
        {"Project": [*(f"explanation/{page}.md" for page in EXPLAINED), "contributing.md", "security.md", "changelog.md"]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for uri, content in pages().items():
        files.append(File.generated(config, uri, content=content))
    return files


def pages() -> dict[str, str]:
    """Every generated page: its place in the site, and its Markdown."""
    made = {"reference/tasks/index.md": task_index(), "reference/configuration/index.md": configuration_index()}
    made |= {f"reference/tasks/{path.stem}.md": task_page(path) for path in pretext_files()}
    cards = {path.stem: task_class(path).card for path in pretext_files()}
    made |= {"reference/recipes.md": recipes.page(), "reference/proofs.md": proofs.page(cards)}
    made |= {"reference/promises.md": promises.page()}
    made |= {f"reference/configuration/{group}.md": group_page(group) for group in groups_on_disk()}
    made |= {"reference/api/index.md": api_index()}
    made |= {f"reference/api/{name}.md": api_page(name) for name in PACKAGES}
    for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY"):
        text = (ROOT / f"{name}.md").read_text().replace("](docs/", "](")
        made[f"{name.lower()}.md"] = text.replace("](CHANGELOG.md", "](changelog.md")
    return made


# Pretext tasks


def pretext_files() -> list[Path]:
    """The YAML of every task: by family, then by name."""
    return sorted((CONF / "pretext").glob("*.yaml"), key=lambda path: (task_class(path).card.family, path.stem))


def task_class(path: Path) -> type[PretextModule]:
    """The class that a task's YAML names."""
    return imported(yaml.safe_load(path.read_text())["pretext"]["_target_"])


def task_index() -> str:
    """The table of tasks, from their cards."""
    lines = [
        "# Pretext tasks",
        "",
        "Two questions place a task: what is its target, and what stops its embedding from collapsing to a constant? "
        "[The design](../../explanation/design.md#the-taxonomy) says where the three families come from; "
        "`ssl-framework tasks` prints this table.",
        "",
        "| task | family | group | target | what prevents collapse | needs | judged by | paper |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in pretext_files():
        cls = task_class(path)
        card = cls.card
        row = [f"[{cls.__name__}]({path.stem}.md)", card.family, card.group, card.target, card.prevents_collapse]
        row += [card.needs, card.judged_by, f"<{card.paper}>"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join([*lines, "", "Yours is missing? [Write it](../../own-pretext-task.md)."])


def task_page(path: Path) -> str:
    """One task: what it means, its card, how to run it, its numbers, and its file in full."""
    cls = task_class(path)
    card = cls.card
    summary, *more = prose(cls)
    facts = {
        "Family": f"{card.family}, {card.group}",
        "Target": card.target,
        "What prevents collapse": card.prevents_collapse,
        "Judged by": card.judged_by,
        "Paper": f"<{card.paper}>",
        "Views of a sample": str(card.views),
        "Needs tokens": "yes: a vision transformer" if card.needs_tokens else "",
        "Needs colour": "yes: images of three channels" if card.needs_colour else "",
        "Encoder that is kept": f"the {card.exports}'s",
        "Selects": ", ".join(f"`{group}={choice}`" for group, choice in overridden(path).items()),
    }
    source = Path(inspect.getfile(cls))
    lines = [f"# {cls.__name__}", "", f"**{summary}**", "", *more, "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items() if value]
    lines += ["", "```bash", f"ssl-framework pretrain pretext={path.stem}", "```", "", "## Its numbers", ""]
    known = meanings(cls)
    keys = [key._replace(comment=known.get(key.name.split(".")[-1], key.comment)) for key in keys_of(path)]
    lines += key_table(keys, {}) or ["It has none."]
    lines += ["", "## All of it", "", fenced(source.read_text(), "python", str(source.relative_to(ROOT)))]
    lines += ["", fenced(path.read_text(), "yaml", f"conf/pretext/{path.name}")]
    return "\n".join([*lines, "", f"In Python: [`ssl_framework.pretext.{cls.__name__}`](../api/pretext.md)."])


def overridden(path: Path) -> dict[str, str]:
    """The groups that a task selects for itself."""
    entries: list[dict[str, str]] = yaml.safe_load(path.read_text())["defaults"]
    return {name.removeprefix("override /"): choice for entry in entries for name, choice in entry.items()}


# Configuration


def groups_on_disk() -> list[str]:
    """The groups that have choices, in the order of `GROUPS`; the rest behind."""
    found = sorted(folder.name for folder in CONF.iterdir() if any(folder.glob("*.yaml")))
    return [group for group in GROUPS if group in found] + [group for group in found if group not in GROUPS]


def configuration_index() -> str:
    """The groups, and the keys of the verbs themselves."""
    lines = [
        "# Configuration",
        "",
        "Every word after the verb is `group=choice` or `key=value`: "
        "`ssl-framework pretrain pretext=mae data=fashion_mnist data.batch_size=128`. "
        "What a choice is called, which keys it has and what they are by default comes from the files below `conf/`; "
        "these pages are made from them. `ssl-framework VERB --help` prints the same for one verb.",
        "",
        "| group | choices |",
        "|---|---|",
    ]
    for group in groups_on_disk():
        lines.append(f"| [`{group}=`]({group}.md) | {' '.join(f'`{path.stem}`' for path in choices(group))} |")
    lines += ["", "## Keys of every verb", "", *key_table(keys_of(CONF / "base.yaml"), {})]
    for verb, meaning in VERBS.items():
        path = CONF / f"{verb}.yaml"
        if not path.is_file():
            continue
        chosen = defaults_of(path)
        lines += ["", f"## {verb}", "", f"{meaning[0].upper()}{meaning[1:]}.", ""]
        if chosen:
            lines += ["By default: " + ", ".join(f"`{group}={choice}`" for group, choice in chosen.items()) + ".", ""]
        lines += key_table(keys_of(path), {})
    return "\n".join(lines)


def group_page(group: str) -> str:
    """The choices of a group, each with every key and its default."""
    lines = [f"# {group}", "", GROUPS.get(group, ""), ""]
    verbs = [f"`{verb}`" for verb in VERBS if (CONF / f"{verb}.yaml").is_file() and group in defaults_of(CONF / f"{verb}.yaml")]
    if verbs:
        lines += [f"Used by {', '.join(verbs)}.", ""]
    for path in choices(group):
        whole = group == "pretext" or path.read_text().startswith("# @package _global_")
        prefix = "" if whole else f"{group}."
        lines += [f"## {group}={path.stem}", "", heading(path), ""]
        content: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
        target = content.get("_target_") or content.get(group, {}).get("_target_")
        known = known_meanings(group, target, content)
        lines += key_table([key._replace(name=prefix + key.name) for key in keys_of(path)], known)
        if target:
            lines += ["", f"Calls `{target}`."]
        lines.append("")
    return "\n".join(lines)


def known_meanings(group: str, target: str | None, content: dict[str, Any]) -> dict[str, str]:
    """What docstrings say of the keys of a choice: that of its target, or of each part's target (monitors, loggers)."""
    if target is not None:
        elsewhere = meanings(imported(ELSEWHERE[group])) if group in ELSEWHERE else {}
        return elsewhere | meanings(imported(target))
    parts = {name: part["_target_"] for name, part in content.items() if isinstance(part, dict) and "_target_" in part}
    ours = {name: where for name, where in parts.items() if where.startswith("ssl_framework.")}
    return {f"{name}.{key}": text for name, where in ours.items() for key, text in meanings(imported(where)).items()}


def choices(group: str) -> list[Path]:
    """The files of a group."""
    return sorted((CONF / group).glob("*.yaml"))


def defaults_of(path: Path) -> dict[str, Any]:
    """The groups of a verb, with the choice of each."""
    entries: list[Any] = (yaml.safe_load(path.read_text()) or {}).get("defaults", [])
    chosen = {name: choice for entry in entries if isinstance(entry, dict) for name, choice in entry.items()}
    return {name: "null" if choice is None else choice for name, choice in chosen.items() if "@" not in name}


def heading(path: Path) -> str:
    """What a choice means: the comment that begins its file, or the first paragraph of its target's docstring."""
    comment, _ = recipes.header(path)
    if comment:
        return f"{comment.rstrip('.')}."
    content: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    return prose(imported(content["_target_"]))[0] if "_target_" in content else ""


def keys_of(path: Path) -> list[Key]:
    """Every key of a YAML file that a user may set, with its value as it is written and its comment."""
    text = path.read_text()
    root = yaml.compose(text)
    found = _leaves(root, "", "", text) if isinstance(root, yaml.MappingNode) else iter(())
    return [
        key
        for key in found
        if key.name not in WRITTEN_BY_US and not key.name.startswith("defaults") and "_target_" not in key.name
    ]


def _leaves(node: yaml.MappingNode, prefix: str, inherited: str, text: str) -> Iterator[Key]:
    """The keys below a node; those without a comment have that of their node."""
    for name, value in node.value:
        key = f"{prefix}{name.value}"
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            yield from _leaves(value, f"{key}.", comment_behind(text, name.end_mark.index), text)
        else:
            start, end = value.start_mark.index, value.end_mark.index
            yield Key(key, " ".join(text[start:end].split()) or "null", comment_behind(text, end) or inherited)


def comment_behind(text: str, position: int) -> str:
    """The comment on the rest of a line."""
    found = re.match(r"[^\n#]*#\s*(.*)", text[position:].split("\n", 1)[0])
    return found.group(1) if found else ""


def key_table(keys: list[Key], known: dict[str, str]) -> list[str]:
    """Keys as a table; what the comment does not say the docstring does."""
    if not keys:
        return []
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key in keys:
        parts = key.name.split(".")
        written = next((known[n] for n in (".".join(parts[1:]), parts[-1]) if n in known), "")
        # the parts of monitors are explained by their classes, and their comments say where a number comes from
        meaning = f"{phrase(written)} ({key.comment})" if written and key.comment and len(parts) > 2 else key.comment or written
        value = key.value.replace("|", "\\|")
        lines.append(f"| `{key.name}` | `{value}` | {phrase(meaning).replace('|', '&#124;')} |")
    return lines


# Python


def api_index() -> str:
    """The public packages."""
    lines = ["# Python", "", "What the command line does is a few lines of Python, see [First run](../../first-run.md).", ""]
    rows = [f"| [`ssl_framework.{name}`]({name}.md) | {meaning} |" for name, meaning in PACKAGES.items()]
    return "\n".join([*lines, "| package | |", "|---|---|", *rows])


def api_page(name: str) -> str:
    """One package: what it exports, in the order of its ``__all__``, or everything public in it."""
    where = f"ssl_framework.{name}"
    module = importlib.import_module(where)
    lines = [f"# {where}", "", "\n\n".join(textwrap.dedent(module.__doc__ or "").strip().split("\n\n")), ""]
    exported = getattr(module, "__all__", None) or public(module)
    for item in sorted(exported, key=lambda n: (not isinstance(getattr(module, n), type), n.lower())):
        lines += [f"::: {where}.{item}", ""]
    return "\n".join(lines)


def public(module: Any) -> list[str]:
    """Classes and functions that a module without ``__all__`` defines itself."""
    found = {n: o for n, o in vars(module).items() if not n.startswith("_") and (inspect.isclass(o) or inspect.isfunction(o))}
    return [name for name, thing in found.items() if thing.__module__ == module.__name__]


# Docstrings


def imported(where: str) -> Any:
    """The object that a dotted name stands for."""
    module, _, name = where.rpartition(".")
    return getattr(importlib.import_module(module), name)


def prose(thing: Any) -> list[str]:
    """The paragraphs of a docstring, before its arguments."""
    sections = parsed(thing)
    text = next((s.value for s in sections if s.kind is griffe.DocstringSectionKind.text), "")
    return [paragraph.replace("\n", " ") for paragraph in text.split("\n\n")]


def meanings(thing: Any) -> dict[str, str]:
    """What the docstring says of each argument; for a function also what that of the returned class says."""
    kinds = {griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes}
    own = {e.name: e.description for section in parsed(thing) if section.kind in kinds for e in section.value}
    returned = None if inspect.isclass(thing) else inspect.signature(thing).return_annotation
    return (meanings(returned) if inspect.isclass(returned) and returned is not inspect.Signature.empty else {}) | own


def parsed(thing: Any) -> list[Any]:
    """The sections of a Google-style docstring."""
    return griffe.Docstring(inspect.getdoc(thing) or "").parse("google", warnings=False)


def phrase(text: str) -> str:
    """On one line, without a full stop, in the words of YAML."""
    line = " ".join(text.split()).removesuffix(".")
    return re.sub(r"\bNone\b", "null", line)


def fenced(code: str, language: str, title: str) -> str:
    """A block of code below its file's name."""
    return f'```{language} title="{title}"\n{code.strip()}\n```'
