"""Fixtures that several test files share: exported encoders, made once a session, and golden texts."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import encoders
from tests.coverage import tables

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="rewrite the golden texts instead of comparing with them")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow unless it is named, by -m or by the id of the test."""
    if config.getoption("-m") or any("::" in argument for argument in config.args):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the rows of tables that a test has filled."""
    if report.when == "call":
        tables.collect(report.user_properties)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests have filled."""
    for title, rows in tables.TABLES.items():
        terminalreporter.section(title)
        for line in tables.lines(rows):
            terminalreporter.write_line(line)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return a function that compares a text with ``tests/golden/<name>.txt``, or writes it with ``--write-golden``."""

    def compare(name: str, found: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--write-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(found, encoding="utf-8")
            return
        assert path.is_file(), f"{path} does not exist; make it with --write-golden"
        wanted = path.read_text(encoding="utf-8")
        lines = difflib.unified_diff(wanted.splitlines(), found.splitlines(), "golden", "found", lineterm="")
        assert found == wanted, "\n".join(lines)

    return compare


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return `tests.encoders.small`, its exports kept for the session."""
    folder = tmp_path_factory.mktemp("exported")
    made: dict[tuple[Any, ...], Path] = {}

    def export(kind: encoders.Kind, **options: Any) -> Path:
        key = (kind, *sorted(options.items()))
        if key not in made:
            made[key] = encoders.small(kind, folder, **options)
        return made[key]

    return export


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the real MiniLM, exported."""
    pytest.importorskip(encoders.minilm_example().PACKAGE, reason="the weights of MiniLM are not installed")
    return encoders.minilm(tmp_path_factory.mktemp("minilm"))
