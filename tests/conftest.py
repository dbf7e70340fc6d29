"""Fixtures that several test files share: exported encoders, each made once a run, golden texts and golden graphs."""

from __future__ import annotations

import difflib
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from filelock import FileLock

from ffc.ci.pytest_plugin import FfcLock
from ffc.graph import files
from ffc.graph.execute import Runner
from tests import encoders
from tests.coverage import tables

GOLDEN = Path(__file__).parent / "golden"


def pytest_configure() -> None:
    """Let workers, of which there are as many as cores, not stand in each other's way."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        # A pool of threads in each session would wait for cores that other workers are using, and spin meanwhile.
        Runner.__init__.__kwdefaults__["threads"] = 1


def pytest_collection_finish() -> None:
    """Look for garbage less often: what is imported stays, and by default a seventh of the time goes into looking at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


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
    """Return a function that compares a text with ``tests/golden/<name>.txt``, or writes it with ``--ffc-accept``."""

    def compare(name: str, found: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--ffc-accept"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(found, encoding="utf-8")
            return
        assert path.is_file(), f"{path} does not exist; make it with --ffc-accept"
        wanted = path.read_text(encoding="utf-8")
        lines = difflib.unified_diff(wanted.splitlines(), found.splitlines(), "golden", "found", lineterm="")
        assert found == wanted, "\n".join(lines)

    return compare


@pytest.fixture
def golden_graph(tmp_path: Path, ffc_lock: FfcLock) -> Callable[[str, ir.Model], None]:
    """Return a function that holds a model against the lock ``tests/golden/<name>.ffc.lock``."""

    def hold(name: str, model: ir.Model) -> None:
        path = tmp_path / f"{name}.onnx"
        files.save(model, path)
        ffc_lock(path, None, lock=GOLDEN / f"{name}.ffc.lock")

    return hold


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def exported(shared_folder: Path) -> Callable[..., Path]:
    """Return a function that exports an `encoders.Export` once, whichever worker asks first, and returns its path."""

    def export(kind: encoders.Kind, **options: Any) -> Path:
        wanted = encoders.Export(kind, **options)
        return _made_once(shared_folder / wanted.file_name, lambda: wanted.write(shared_folder))

    return export


@pytest.fixture(scope="session")
def minilm(shared_folder: Path) -> Path:
    """Return the path of the real MiniLM, exported."""
    pytest.importorskip(encoders.minilm_example().PACKAGE, reason="the weights of MiniLM are not installed")
    return _made_once(shared_folder / "minilm.onnx", lambda: encoders.minilm(shared_folder))


def _made_once(path: Path, make: Callable[[], Path]) -> Path:
    """Return `path` once a worker has made it."""
    done = path.with_suffix(".done")  # an export that fails leaves half a file
    with FileLock(path.with_suffix(".lock")):
        if not done.exists():
            assert make() == path
            done.touch()
    return path
