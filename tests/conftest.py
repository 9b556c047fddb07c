from collections.abc import Iterator

import pytest
import torch

_GOLDEN: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write the golden curves anew")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _GOLDEN:
        terminalreporter.write_line(f"golden curve {line}")


@pytest.fixture
def golden_lines() -> list[str]:
    """What the golden tests want said at the end of the run."""
    return _GOLDEN


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread: several workers share two cores, the number of threads changes the bits, and a forked child needs no pool."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
