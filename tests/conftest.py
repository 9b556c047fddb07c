import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write the golden curves, or the rows of collapses, anew")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties if report.when == "call" else ():
                if name == "golden":  # how a curve was compared; properties travel from the workers
                    terminalreporter.write_line(f"golden curve {value}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of reliability are all of some promise; those that record it themselves are chosen by the mark, too."""
    for item in items:
        if item.path.parent.name == "reliability" and not any(item.iter_markers("promise")):
            item.add_marker("promise")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test proves goes into its report, which `benchmarks/promises.py` counts."""
    for mark in item.iter_markers("promise"):
        if mark.args:
            number, kind = mark.args
            item.user_properties += [("promise", number), ("kind", kind)]


@pytest.fixture(autouse=True)
def _nothing_is_left_here() -> Iterator[None]:
    """A run without a folder of its own writes where the tests were started: into the sources, and from there into a commit."""
    yield
    left = [name for name in ("checkpoints", "encoder.safetensors", "encoder.yaml") if (ROOT / name).exists()]
    assert not left, f"a run without default_root_dir left {', '.join(left)} in {ROOT}: remove it, and give the run a tmp_path"


@pytest.fixture(autouse=True)
def _lightning_speaks() -> None:
    """The commands quiet its loggers for the whole process, and the next test may listen to them."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.INFO)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """One thread: several workers share two cores, the number of threads changes the bits, and a forked child needs no pool.

    For the whole session, so that what fixtures of a module train has the same bits as what tests train.

    And a first backward on the CPU: if it came after a test that compiles, torch would start threads for other devices with it,
    and refuse every backward in a forked child.
    """
    torch.set_num_threads(1)
    torch.ones(1, requires_grad=True).sum().backward()
