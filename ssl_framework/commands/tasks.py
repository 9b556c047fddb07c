"""``ssl-framework tasks``: the pretext tasks whose configuration is there, as their cards describe them."""

from typing import Any

import hydra.utils
import yaml

from ssl_framework.commands import explain
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.paths import conf_dir
from ssl_framework.pretext import Card


def run(settings: Settings) -> dict[str, Any]:  # noqa: ARG001  (every verb takes settings)
    """Print the table.

    Returns:
        ``tasks``: for each name, the card's fields.
    """
    found = cards()
    lines = [("pretext=", "family", "group", "needs", "judged by", "target", "what prevents collapse", "paper")]
    lines += [
        (name, c.family, c.group, c.needs, c.judged_by, c.target, c.prevents_collapse, c.paper) for name, c in found.items()
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    say(*["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines])
    return {"tasks": {name: vars(card) for name, card in found.items()}}


def cards() -> dict[str, Card]:
    """The card of every task that ``conf/pretext`` names, by family, then name."""
    found: dict[str, Card] = {}
    for name in explain.choices_in("pretext"):
        node = yaml.safe_load((conf_dir() / "pretext" / f"{name}.yaml").read_text())["pretext"]
        found[name] = hydra.utils.get_class(node["_target_"]).card
    return dict(sorted(found.items(), key=lambda item: (item[1].family, item[0])))
