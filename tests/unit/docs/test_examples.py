"""Every example of the README and the documentation: Python runs, commands compose, links lead somewhere."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ssl_framework.commands import VERBS, compose
from ssl_framework.commands.explain import keyed
from ssl_framework.pretext import PretextModule
from support import accepts, some_views

ROOT = Path(__file__).resolve().parents[3]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
TUTORIAL = "align_uniform"  # the tutorial's own task: it is not in the repository, so its commands are composed with another


class Block(NamedTuple):
    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in found]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path) -> list[list[str]]:
    lines = [line for block in blocks(page) if block.language == "bash" for line in block.text.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and line[0] == "ssl-framework"]


def of(pages: list[Path], language: str) -> list[Path]:
    return [page for page in pages if any(block.language == language for block in blocks(page))]


def make_images(folder: Path) -> None:
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


@pytest.mark.parametrize("page", of(PAGES, "python"), ids=name)
@pytest.mark.filterwarnings("ignore")  # a reader's terminal shows warnings of third parties as well
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All blocks of a page, one after the other, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "photos")
    torch.manual_seed(0)
    namespace = vars(ModuleType("example"))
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, name(page), "exec"), namespace)
    if "run.trainer" in page.read_text():
        assert list(tmp_path.glob("runs/*/encoder.safetensors"))


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_commands_compose(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run that a page makes by ``run.dir=`` lends its settings to the commands below it, as on the reader's disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSL_FRAMEWORK_DATA", raising=False)
    if "\nexport SSL_FRAMEWORK_DATA=" in page.read_text():
        monkeypatch.setenv("SSL_FRAMEWORK_DATA", str(tmp_path))
    for line in commands(page):
        flags = [word for word in line if word.startswith("-")]
        words = [word for word in line if word not in flags and word != f"pretext={TUTORIAL}"]
        if not words or words[0] in {"demo", "tasks"}:
            assert not words or words[0] in VERBS
            continue
        verb, *rest = words
        if "--multirun" in flags:
            compose.checked(verb, rest)
            continue
        settings = compose.compose(verb, keyed(verb, rest))
        if verb == "pretrain" and any(word.startswith("run.dir=") for word in rest):
            run = Path(settings["run"]["dir"])
            run.mkdir(parents=True, exist_ok=True)
            (run / "config.yaml").write_text(yaml.safe_dump(settings))


def anchors(page: Path) -> set[str]:
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    yield from (link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http:", "https:", "mailto:")))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path, generated: dict[str, str]):
    """To a file, or to a page that the documentation generates; anchors to headings that are there."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        place = str(target.relative_to(ROOT / "docs")) if target.is_relative_to(ROOT / "docs") else ""
        assert target.exists() or place in generated, f"{name(page)}: {link}"
        if anchor and target.exists():
            assert anchor in anchors(target), f"{name(page)}: {link}"


def test_the_tutorial_keeps_its_own_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the page asks of a reader's task holds for its own: the YAML equals the signature, the loss is finite and falls."""
    files = {block.title: block.text for block in blocks(ROOT / "docs" / "own-pretext-task.md") if block.title}
    config = yaml.safe_load(files[f"conf/pretext/{TUTORIAL}.yaml"])
    assert files[f"conf/pretext/{TUTORIAL}.yaml"].startswith("# @package _global_\n")
    namespace = vars(ModuleType("tutorial"))
    exec(files[f"ssl_framework/pretext/contrastive/{TUTORIAL}.py"], namespace)
    cls = namespace[config["pretext"].pop("_target_").rsplit(".", 1)[1]]
    assert issubclass(cls, PretextModule)
    assert cls.card.family == "contrastive"
    assert config["pretext"] == {name: parameter.default for name, parameter in accepts(cls.__init__).items()}

    from ssl_framework.encoders import resnet_micro

    torch.manual_seed(0)
    module, views = cls(resnet_micro(in_chans=1, img_size=8), hidden_dim=32, projection_dim=16), some_views("simclr", batch=16)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    losses: list[float] = []
    for _ in range(30):
        loss = module(views).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


def test_the_tutorial_loss_is_the_papers():
    """Equation 3 and 4 of Wang and Isola, pair by pair in float64."""
    files = {block.title: block.text for block in blocks(ROOT / "docs" / "own-pretext-task.md") if block.title}
    namespace = vars(ModuleType("tutorial"))
    exec(files[f"ssl_framework/pretext/contrastive/{TUTORIAL}.py"], namespace)
    z = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1)
    pairs = [torch.exp(-2 * (z[i] - z[j]).square().sum()) for i in range(5) for j in range(i)]
    assert namespace["Uniformity"]()(z).item() == pytest.approx((sum(pairs) / len(pairs)).log().item(), rel=1e-12)


def test_mistakes_that_the_audit_s_table_lists_are_planted_by_tests():
    """Each row of the page names a test, in a file of its folder or one that the row names."""
    page = (ROOT / "docs" / "transfer.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "`test_" in line]
    assert len(rows) >= 14
    for row in rows:
        *_, named = row.split("|")[:-1]
        (test,) = re.findall(r"`(test_\w+)(?:\[\w+\])?`", named)
        files = re.findall(r"`(tests/\S+\.py)`", named) or ["tests/unit/downstream/test_audit.py"]
        assert f"def {test}(" in (ROOT / files[0]).read_text(), row
