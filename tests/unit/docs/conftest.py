import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HOOKS = Path(__file__).resolve().parents[3] / "docs" / "hooks.py"


@pytest.fixture(scope="session")
def hooks() -> ModuleType:
    """``docs/hooks.py``, as mkdocs imports it."""
    spec = importlib.util.spec_from_file_location("hooks", HOOKS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(HOOKS.parent), *sys.path])
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def generated(hooks: ModuleType) -> dict[str, str]:
    """The pages that mkdocs generates: place in the site and Markdown."""
    return hooks.pages()
