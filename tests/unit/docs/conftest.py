from types import ModuleType

import pytest

from support import script


@pytest.fixture(scope="session")
def hooks() -> ModuleType:
    """``docs/hooks.py``, as mkdocs imports it."""
    return script("docs/hooks.py")


@pytest.fixture(scope="session")
def generated(hooks: ModuleType) -> dict[str, str]:
    """The pages that mkdocs generates: place in the site and Markdown."""
    return hooks.pages()
