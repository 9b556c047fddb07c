"""The page of recipes: what ``conf/experiment/`` holds, and what was published about it.

The comment that begins an experiment's YAML says what the recipe is, then states facts, one a line: ``# published: 90.74 %``,
``# protocol: ...``, ``# source: ...``, ``# status: not re-run here``, and ``# differs: ...`` where the source does what cannot
be said here. Groups that it selects are read from its defaults list, and from those of the experiment that it builds on.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ssl_framework.paths import conf_dir

CONF = conf_dir()

NEEDED = ("published", "protocol", "source", "status")
"""Facts that every experiment states."""

NONE = "none"
"""What an experiment without a published number states."""

ABOUT = """# Recipes and published results

A recipe is a whole run by one name: `ssl-framework pretrain experiment=cifar10_simclr`. Every key can be changed beside it.

**A published number is the source's, not ours.** What was not trained with this software says *not re-run here*. Numbers of
different protocols cannot be compared: the online linear accuracy of a long training, the best epoch of neighbours on the test
set, and a probe whose penalty was chosen on a validation split are three different things.

## What solo-learn's recipes share

Its learning rate is `lr * batch / 256`, as here with `optimizer.scale_lr=linear`. Its LARS is ours: momentum 0.9, trust
coefficient 0.02, a layer's rate never above `lr` (`clip_lr`), and neither decay nor rescaling of biases and norms. What these
recipes cannot say:

- Its stem pads by 2 pixels, so that maps begin at 34 x 34; ours pads by 1.
- It crops bicubically; these views do it bilinearly.
- It trains on all 50,000 images and looks at the test set; here 10 % validate (`data.val_share`), so an epoch has a tenth fewer
  steps.
- Its linear classifier learns from every batch, beside the encoder; here the online probe is a monitor, and
  `ssl-framework evaluate` measures afterwards.
- It trains in float16; here `precision=auto` takes what the machine is fast at.
- Its rate rises from 3e-5 or 0; ours from a share of itself.

What one method does differently beyond these stands in its row."""


class Recipe(NamedTuple):
    """An experiment: its name, what its comment says, the groups it selects, and the facts it states."""

    name: str
    meaning: str
    chosen: dict[str, str]
    facts: dict[str, str]


def recipes() -> list[Recipe]:
    """Every experiment on disk, by name."""
    return [recipe(path) for path in sorted((CONF / "experiment").glob("*.yaml"))]


def recipe(path: Path) -> Recipe:
    """The experiment of a YAML file.

    Raises:
        ValueError: it leaves out a fact.
    """
    meaning, facts = header(path)
    for name in NEEDED:
        if not facts.get(name):
            raise ValueError(f"{path.name} does not say what is {name}: begin it with a comment `# {name}: ...`.")
    return Recipe(path.stem, meaning, chosen(path), facts)


def header(path: Path) -> tuple[str, dict[str, str]]:
    """The comment that begins a YAML file: its prose, and the facts behind it."""
    prose: list[str] = []
    facts: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ")
        if found := re.fullmatch(r"(published|protocol|source|status|differs): (.+)", text):
            facts[found.group(1)] = found.group(2)
        elif "@package" not in line:
            prose.append(text)
    return " ".join(prose), facts


def chosen(path: Path) -> dict[str, str]:
    """The groups that an experiment selects; what it says itself wins over what it builds on."""
    groups: dict[str, str] = {}
    for entry in yaml.safe_load(path.read_text()).get("defaults", []):
        if isinstance(entry, dict):
            groups |= {name.removeprefix("override /"): choice for name, choice in entry.items()}
        elif entry != "_self_":
            groups = chosen(path.with_name(f"{entry}.yaml")) | groups
    return groups


def page() -> str:
    """All recipes: a table for each data set and protocol, the best published number first."""
    lines = [ABOUT]
    everything = sorted(recipes(), key=_order)
    for data, of_data in groupby(everything, key=lambda one: one.chosen["data"]):
        lines += ["", f"## {data}"]
        for protocol, same in groupby(of_data, key=lambda one: one.facts["protocol"]):
            lines += ["", f"Protocol: {protocol}.", ""]
            lines += [
                "| experiment | task | encoder | published | status | source | differs |",
                "|---|---|---|---|---|---|---|",
            ]
            lines += ["| " + " | ".join(_row(one)) + " |" for one in same]
    return "\n".join(lines)


def _order(one: Recipe) -> tuple[Any, ...]:
    published = one.facts["published"]
    number = re.match(r"[\d.]+", published)
    return (one.chosen["data"], number is None, one.facts["protocol"], -float(number.group()) if number else 0.0, one.name)


def _row(one: Recipe) -> Iterator[str]:
    task = one.chosen["pretext"]
    target: str = yaml.safe_load((CONF / "pretext" / f"{task}.yaml").read_text())["pretext"]["_target_"]
    yield f"[`{one.name}`](configuration/experiment.md#experiment{one.name})"
    yield f"[{target.rsplit('.', 1)[1]}](tasks/{task}.md)"
    yield f"`{one.chosen['encoder']}`"
    yield one.facts["published"]
    yield one.facts["status"]
    yield one.facts["source"]
    yield one.facts.get("differs", "")
