"""The generated pages say what the code and the configuration say."""

from pathlib import Path
from types import ModuleType

import pytest
import yaml

from support import CONF, TASKS, task_class


@pytest.mark.parametrize("task", TASKS)
def test_a_page_for_each_task(task: str, generated: dict[str, str]):
    page, cls = generated[f"reference/tasks/{task}.md"], task_class(task)
    assert f"# {cls.__name__}" in page
    for fact in (
        cls.card.family,
        cls.card.group,
        cls.card.target,
        cls.card.prevents_collapse,
        cls.card.judged_by,
        cls.card.paper,
    ):
        assert fact in page
    assert (CONF / "pretext" / f"{task}.yaml").read_text().strip() in page
    assert f"class {cls.__name__}(PretextModule)" in page
    index = generated["reference/tasks/index.md"]
    assert f"| [{cls.__name__}]({task}.md) | {cls.card.family} | {cls.card.group} |" in index


@pytest.mark.parametrize("path", sorted(CONF.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_choice_with_every_key_and_default(path: Path, generated: dict[str, str]):
    group = path.parent.name
    page = generated[f"reference/configuration/{group}.md"]
    section = page.split(f"## {group}={path.stem}\n", 1)[1].split("\n## ", 1)[0]
    content = yaml.safe_load(path.read_text()) or {}

    def leaves(node: dict, prefix: str):
        for key, value in node.items():
            if key in {"_target_", "defaults"}:
                continue
            block = isinstance(value, dict) and value and f"{key}: {{" not in path.read_text()
            if block:
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    prefix = "" if path.read_text().startswith("# @package _global_") else f"{group}."
    for key, value in leaves(content, prefix):
        row = next((line for line in section.splitlines() if line.startswith(f"| `{key}` |")), None)
        assert row is not None, key
        assert yaml.safe_load(row.split("|")[2].strip().strip("`")) == value


def test_a_key_without_comment_is_explained_by_the_docstring(generated: dict[str, str]):
    page = generated["reference/configuration/data.md"].split("## data=digits", 1)[1].split("\n## ", 1)[0]
    assert "| `data.batch_size` | `256` | samples of a batch, all processes together |" in page


def test_links_from_the_root_are_those_of_the_site(generated: dict[str, str]):
    page = generated["contributing.md"]
    assert "](own-pretext-task.md)" in page
    assert "](docs/" not in page


def test_everything_exported_is_in_the_reference(hooks: ModuleType, generated: dict[str, str]):
    import importlib

    for name in hooks.PACKAGES:
        exported = getattr(importlib.import_module(f"ssl_framework.{name}"), "__all__", [])
        for item in exported:
            assert f"::: ssl_framework.{name}.{item}" in generated[f"reference/api/{name}.md"]
