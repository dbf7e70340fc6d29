"""What ffc needs of other packages, and which of them is missing or of another version where something went wrong."""

from __future__ import annotations

import contextlib
import sys
from importlib import metadata

from ffc.version import DISTRIBUTION

__all__ = ["unfit"]


def unfit(error: BaseException) -> str:
    """Return which package explains an error that nobody foresaw, and what to do; empty where none does.

    A package that is older than ffc asks for fails in any way there is, so every error may come of one. Packages that
    have not been imported explain nothing.
    """
    missing = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    if missing == "ffc":
        return ""
    with contextlib.suppress(ImportError):  # packaging may be what is missing
        for wanted, found in _outdated(missing):
            return f"ffc needs {wanted}, and {found} is installed; install it with pip install '{wanted}'"
    if isinstance(error, ModuleNotFoundError) and missing:
        return f"the package '{missing}' is missing; install it"
    return ""


def _outdated(missing: str) -> list[tuple[str, str]]:
    """Return what ffc asks for and has been imported, or should have been, in another version, and that version."""
    from packaging.requirements import Requirement

    found = []
    for text in _stated():
        wanted = Requirement(text)
        module = wanted.name.replace("-", "_")
        if module not in sys.modules and module != missing:
            continue
        with contextlib.suppress(metadata.PackageNotFoundError):
            version = metadata.version(wanted.name)
            if not wanted.specifier.contains(version, prereleases=True):
                found.append((f"{wanted.name}{wanted.specifier}", version))
    return found


def _stated() -> list[str]:
    """Return what the distribution says it needs, its extras included; nothing in a checkout that is not installed."""
    try:
        return metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
