"""The page of recipes says what the YAML files of ``conf/experiment/`` say."""

from pathlib import Path
from types import ModuleType

import pytest

from ssl_framework.commands import compose
from support import CONF, task_class

EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))


@pytest.fixture(scope="module")
def recipes(hooks: ModuleType) -> ModuleType:
    return hooks.recipes


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_row_for_each_experiment(path: Path, recipes: ModuleType, generated: dict[str, str]):
    page = generated["reference/recipes.md"]
    (row,) = (line for line in page.splitlines() if line.startswith(f"| [`{path.stem}`]"))
    one = recipes.recipe(path)
    assert f"[{task_class(one.chosen['pretext']).__name__}](tasks/{one.chosen['pretext']}.md)" in row
    for fact in ("published", "status", "source", "differs"):
        assert one.facts.get(fact, "") in row
    above = page.split(row)[0]
    assert above.rsplit("\n## ", 1)[1].startswith(f"{one.chosen['data']}\n")
    assert f"Protocol: {one.facts['protocol']}." in above.rsplit("\n## ", 1)[1].splitlines()
    assert f"## experiment={path.stem}\n" in generated["reference/configuration/experiment.md"]  # where the row leads


@pytest.mark.parametrize("name", ["cifar10_dino", "cifar100_dino", "stl10_simclr", "digits_simclr"])
def test_the_groups_are_those_that_the_command_line_composes(name: str, recipes: ModuleType):
    settings = compose.compose("pretrain", [f"experiment={name}", "data_root=nowhere"], folder="unused")
    chosen = recipes.chosen(CONF / "experiment" / f"{name}.yaml")
    assert chosen.items() <= settings["run"]["choices"].items()
    assert {"data", "pretext", "encoder", "views"} <= set(chosen)


def test_the_best_published_number_comes_first(recipes: ModuleType, generated: dict[str, str]):
    section = generated["reference/recipes.md"].split("\n## cifar100\n")[1].split("\n## ")[0]
    rows = [line.split("|")[4].strip() for line in section.splitlines() if line.startswith("| [`")]
    numbers = [float(row.removesuffix(" %")) for row in rows if row != "none"]
    assert len(numbers) == 13
    assert numbers == sorted(numbers, reverse=True)
    assert rows[-1] == "none"


@pytest.mark.parametrize("fact", ["published", "protocol", "source", "status"])
def test_an_experiment_without_a_fact_is_refused(fact: str, recipes: ModuleType, tmp_path: Path):
    text = (CONF / "experiment" / "cifar10_simclr.yaml").read_text()
    path = tmp_path / "cifar10_simclr.yaml"
    path.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith(f"# {fact}: ")))
    with pytest.raises(ValueError, match=f"cifar10_simclr.yaml does not say what is {fact}"):
        recipes.recipe(path)


def test_facts_are_no_part_of_what_a_choice_means(hooks: ModuleType):
    assert hooks.heading(CONF / "experiment" / "cifar10_simclr.yaml") == "SimCLR on CIFAR-10 as solo-learn trains it."
