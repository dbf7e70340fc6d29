"""The rooms of the house are those that CONTRIBUTING.md draws and lists, and imports go down alone."""

from __future__ import annotations

import ast
import graphlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.checkout import ROOT

DOCUMENT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROOMS = tuple(re.findall(r"^\| `((?:ffc|passes)/\S*)` \|", DOCUMENT, re.MULTILINE))
"""Folders, and files that stand alone, from the top down."""

ARROWS = set(re.findall(r"^    (\w+) --> (\w+)$", DOCUMENT, re.MULTILINE))
"""The arrows of the picture."""

MOST_FILES = 14
TORCH = {"accelerate", "datasets", "torch", "transformers"}
FILES = tuple(sorted(path for part in ("ffc", "passes") for path in (ROOT / part).rglob("*.py")))


def module(path: Path) -> str:
    """Return the name that a file is imported by; a folder has that of its ``__init__.py``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(path: Path) -> str:
    """Return the room of a file: itself if it is listed, or its folder."""
    place = path.relative_to(ROOT)
    return str(place) if str(place) in ROOMS else f"{place.parent}/"


def wing(path: Path) -> str:
    """Return the box of the picture that a file is in: a part of ffc, or ``ffc`` for what a user imports."""
    first, *rest = path.relative_to(ROOT).parts
    if first == "passes" or len(rest) > 1:
        return rest[0] if first == "ffc" else first
    return {"__init__.py": "ffc", "__main__.py": "cli", "cli.py": "cli"}.get(rest[0], "ground")


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield all modules that a file imports, wherever in it, and whether for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A pass that is a folder is loaded by its path, so its modules import each other by their places.
            place = ".".join(path.relative_to(ROOT).parts[: -node.level]) if node.level else ""
            home = ".".join(part for part in (place, node.module) if part)
            yield from ((f"{home}.{alias.name}", node in for_types) for alias in node.names)
        elif isinstance(node, ast.Constant) and str(node.value).startswith("ffc.commands."):
            yield str(node.value), False  # imported by its name, when a command is asked for


def arrows() -> dict[Path, set[Path]]:
    """Return, for every file, the files of the house that it imports, for types too."""
    known = {module(path): path for path in FILES}
    found: dict[Path, set[Path]] = {}
    for path in FILES:
        names = [name if name in known else name.rpartition(".")[0] for name, _ in imported(path)]
        found[path] = {known[name] for name in names if name in known and known[name] != path}
    return found


def reduced(graph: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """Return the arrows of a graph without circles that no way through others makes superfluous."""
    below: dict[str, set[str]] = {}
    for box in graphlib.TopologicalSorter(graph).static_order():
        targets = graph.get(box, set())
        below[box] = targets.union(*(below[target] for target in targets))
    return {
        (box, target)
        for box, targets in graph.items()
        for target in targets
        if not any(target in below[other] for other in targets)
    }


def test_every_room_is_listed_and_every_listed_room_is_there() -> None:
    assert Counter(ROOMS) == Counter({room(path) for path in FILES})


@pytest.mark.parametrize("name", [name for name in ROOMS if name.endswith("/")])
def test_a_room_holds_what_one_can_overlook(name: str) -> None:
    files = [path.name for path in FILES if room(path) == name]
    assert len(files) <= MOST_FILES, files


def test_files_import_each_other_in_no_circle() -> None:
    graphlib.TopologicalSorter(arrows()).prepare()


def test_imports_go_down_from_room_to_room() -> None:
    floors = {name: floor for floor, name in enumerate(ROOMS)}
    up = [
        f"{path.relative_to(ROOT)} -> {target.relative_to(ROOT)}"
        for path, targets in arrows().items()
        for target in targets
        if floors[room(target)] < floors[room(path)]
    ]
    assert not up


def test_nobody_reaches_past_the_surface_of_the_defence() -> None:
    inside = ROOT / "ffc/graph/soundness"
    hidden = {module(path) for path in inside.glob("*.py")} - {module(inside / "__init__.py")}
    assert hidden
    everything = (path for part in ("ffc", "passes", "examples", "tests") for path in (ROOT / part).rglob("*.py"))
    past = [
        f"{path.relative_to(ROOT)} -> {name}"
        for path in everything
        if path.parent != inside
        for name, _ in imported(path)
        if not hidden.isdisjoint((name, name.rpartition(".")[0]))
    ]
    assert not past


def test_the_picture_has_the_arrows_of_the_code() -> None:
    graph: dict[str, set[str]] = {}
    for path, targets in arrows().items():
        graph.setdefault(wing(path), set()).update({wing(target) for target in targets} - {wing(path)})
    assert reduced(graph) == ARROWS


def test_torch_is_imported_in_train_alone() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        for name, for_types in imported(path)
        if name.partition(".")[0] in TORCH and not for_types and wing(path) != "train"
    ]
    assert not found


def test_tests_stand_where_what_they_test_stands() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    strangers = [
        str(folder)
        for folder in folders
        if folder.parts and folder.parts[0] in {wing(path) for path in FILES} and folder.parts[0] != "passes"
        if not (ROOT / "ffc" / folder).is_dir()
    ]
    assert not strangers
