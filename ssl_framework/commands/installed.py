"""Whether what is installed is what this program asks for."""

from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

_NAME = "ssl-framework"


def require() -> None:
    """Refuse libraries that are too old, before torch is imported: some of the floors close ways in for hostile files.

    Raises:
        ValueError: names what is installed, what is needed, and the command that installs it.
    """
    try:
        lines = metadata.requires(_NAME) or []
    except metadata.PackageNotFoundError:  # run from a folder, without an installation
        return
    for requirement in map(Requirement, lines):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found = None
        if found is None or not _will_do(found, requirement):
            state = "is not installed" if found is None else f"{found} is installed"
            raise ValueError(
                f"{requirement.name} {state}, and {_NAME} needs {requirement.name}{requirement.specifier}: "
                f"pip install '{requirement.name}{requirement.specifier}'."
            )


def _will_do(found: str, requirement: Requirement) -> bool:
    """Builds before a release count as it: vendors ship ``2.11.0a0+nv26.2`` for good."""
    try:
        release = Version(found).base_version
    except InvalidVersion:  # a build that says nothing of itself
        return True
    return any(requirement.specifier.contains(version, prereleases=True) for version in (found, release))
