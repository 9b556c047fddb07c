"""The pages in the docs say what the rows behind them say, open offline, and are small."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ssl_framework import report
from ssl_framework.commands import compose
from ssl_framework.report.page import parts
from ssl_framework.report.page.markup import tag
from ssl_framework.transfer import claims
from support import script

ROOT = Path(__file__).parents[3]
NAMES = sorted(path.name.removesuffix(".jsonl.gz") for path in (ROOT / "benchmarks" / "evidence").glob("*.jsonl.gz"))
PAGES = sorted(path.stem for path in (ROOT / "docs" / "evidence").glob("*.html"))
MOST_BYTES = 1_000_000


@pytest.fixture(scope="module")
def evidence() -> ModuleType:
    return script("benchmarks/evidence.py")


@pytest.mark.parametrize("name", NAMES)
def test_the_sentence_of_a_page_is_that_of_its_rows(name: str, evidence: ModuleType) -> None:
    rows = evidence.kept(name)
    page = (ROOT / "docs" / "evidence" / f"{name}.html").read_text()
    for sentence in re.split(r"(?<=\.) ", claims.headline(claims.verdicts(rows))):
        assert str(tag("p", sentence))[3:-4] in page
    for one in claims.summary(rows)["verdicts"]:
        assert f">{parts.gain_text({'gain': (one['gain'], one['low'], one['high'])})}<" in page
    assert len({row["seed"] for row in rows if _is_judged(row) and not row.get("na")}) == 5
    assert {row["budget"] for row in rows} == {1, 10, 50, 250}
    case = evidence.CASES[name]
    assert f"ssl-framework transfer encoder_file=runs/{name} {' '.join(case.study)}" in page
    assert f"ssl-framework pretrain {' '.join(case.pretrain)}" in page


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_as_it_would_be_written_today(name: str, evidence: ModuleType, tmp_path: Path) -> None:
    """All but the pictures, which need the encoder."""
    page = (ROOT / "docs" / "evidence" / f"{name}.html").read_text()
    told = {key: value for key, value in evidence.results(name).items() if key != "claims"}
    again = report.write_page(told, tmp_path / "report.html").read_text()
    sections = [part.partition("</section>")[0] for part in again.split("<section ")[1:]]
    assert len(sections) == 10
    for section in sections:
        assert section in page


def test_every_recipe_that_names_the_page_was_studied(evidence: ModuleType) -> None:
    told = {
        file.stem
        for file in (ROOT / "conf" / "experiment").glob("*.yaml")
        if "docs/explanation/evidence.md" in file.read_text()
    }
    assert told
    assert told <= {case.pretrain[0].partition("=")[2] for name, case in evidence.CASES.items() if name in NAMES}


def test_every_study_has_its_page(evidence: ModuleType) -> None:
    assert sorted(evidence.CASES) == NAMES
    assert sorted([*NAMES, *(["comparison"] if len(NAMES) > 1 else [])]) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_one_small_file(name: str) -> None:
    page = (ROOT / "docs" / "evidence" / f"{name}.html").read_bytes()
    assert len(page) < MOST_BYTES
    assert not re.search(rb"""(?:src|href)=["']?(?:https?:)?//""", page)


@pytest.mark.parametrize("name", NAMES)
def test_its_commands_can_be_typed(name: str, evidence: ModuleType) -> None:
    case = evidence.CASES[name]
    compose.compose("pretrain", list(case.pretrain))
    compose.compose("transfer", [f"encoder_file=runs/{name}", *case.study])


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_bound_to_one_recipe(name: str, evidence: ModuleType) -> None:
    recipes = [row["recipe"] for row in evidence.kept(name)]
    for key in ("code", "data_fingerprint", "torch"):
        assert len({recipe[key] for recipe in recipes}) == 1
    assert evidence.results(name)["environment"]["pretrained on"]


def test_the_comparison_has_every_study(evidence: ModuleType) -> None:
    page = (ROOT / "docs" / "evidence" / "comparison.html").read_text()
    for name in NAMES:
        told = evidence.results(name)
        assert told["sentence"] == claims.headline(claims.verdicts(evidence.kept(name)))
        assert told["title"] in page
        assert str(tag("b", told["sentence"]))[3:-4] in page


def test_the_tables_of_the_docs_are_made_of_the_rows(evidence: ModuleType) -> None:
    assert (ROOT / "docs" / "explanation" / "evidence.md").read_text() == evidence.page()
    readme = (ROOT / "README.md").read_text()
    assert readme == evidence.readme(readme)
    assert readme.count("\n".join(evidence.overview())) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_overview_says_what_was_reached(name: str, evidence: ModuleType) -> None:
    case, rows = evidence.CASES[name], evidence.kept(name)
    line = next(line for line in evidence.overview() if line.startswith(f"| {case.pretext} on {case.data} |"))
    shown = line.strip("|").split("|")[1:]
    for cell, one in zip(shown, claims.summary(rows)["verdicts"], strict=True):
        scratch, raw_pixels, pca, random, ours = (
            np.mean(
                [
                    row["accuracy"]
                    for row in rows
                    if _is_judged(row) and (row["method"], row["budget"]) == (method, one["budget"])
                ]
            )
            for method in ("scratch", "raw_pixels", "pca", "random_frozen", one["method"])
        )
        told = re.fullmatch(r" (\d+\.\d) / (\d+\.\d) → (\*\*)?(\d+\.\d)(\*\*)? ", cell)
        assert told is not None
        assert float(told[1]) == pytest.approx(100 * scratch, abs=0.051)
        assert float(told[2]) == pytest.approx(100 * max(raw_pixels, pca, random), abs=0.051)
        assert float(told[4]) == pytest.approx(100 * ours, abs=0.051)
        assert bool(told[3]) == (one["verdict"] == "pays")


def _is_judged(row: dict[str, Any]) -> bool:
    return not row.get("pilot") and not row.get("label_noise")
