"""Fixtures that several test files share: exported encoders, each made once a run, golden texts and golden graphs.

Without torch, as `make lowest` has it, a test that imports what an extra brings is skipped, and exports are made by the
Python that `--exporter` names.
"""

from __future__ import annotations

import difflib
import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from filelock import FileLock

from ffc.ci.pytest_plugin import FfcLock
from ffc.errors import MissingError
from ffc.graph import files
from ffc.graph.execute import Runner
from tests import encoders
from tests.coverage import tables

GOLDEN = Path(__file__).parent / "golden"
_OF_EXTRAS = {"datasets", "matplotlib", "playwright", "pyarrow", "tokenizers", "torch", "transformers"}
"""What the core does without; `tests/test_layout.py` holds that its files do not import it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the Python of another environment."""
    parser.addoption("--exporter", metavar="PYTHON", help="a Python with torch, to make exports where this one has none")


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


@contextmanager
def _skipped_without_extras() -> Iterator[None]:
    """Skip what needs a package that only an extra brings, where that is not installed."""
    try:
        yield
    except (ModuleNotFoundError, MissingError, pytest.Collector.CollectError) as error:
        lost = error if isinstance(error, ModuleNotFoundError) else error.__cause__
        name = (getattr(lost, "name", None) or "").partition(".")[0]
        if name not in _OF_EXTRAS:
            raise
        pytest.skip(f"needs {name}", allow_module_level=True)


class _Module(pytest.Module):
    def collect(self) -> Any:
        with _skipped_without_extras():
            return super().collect()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    """Collect a file of tests that may need extras."""
    return _Module.from_parent(parent, path=module_path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Set up a test that may need extras."""
    with _skipped_without_extras():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Run a test that may need extras."""
    with _skipped_without_extras():
        return (yield)


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
def exported(shared_folder: Path, pytestconfig: pytest.Config) -> Callable[..., Path]:
    """Return a function that exports an `encoders.Export` once, whichever worker asks first, and returns its path."""

    def export(kind: encoders.Kind, **options: Any) -> Path:
        wanted = encoders.Export(kind, **options)
        return _made_once(shared_folder / wanted.file_name, lambda: write(wanted))

    def write(wanted: encoders.Export) -> Path:
        if python := pytestconfig.getoption("--exporter"):
            return _made_by(python, f"{wanted}.write", shared_folder)
        return wanted.write(shared_folder)

    return export


@pytest.fixture(scope="session")
def minilm(shared_folder: Path, pytestconfig: pytest.Config) -> Path:
    """Return the path of the real MiniLM, exported."""
    path = shared_folder / "minilm.onnx"
    if python := pytestconfig.getoption("--exporter"):
        return _made_once(path, lambda: _made_by(python, "minilm", shared_folder))
    pytest.importorskip(encoders.minilm_example().PACKAGE, reason="the weights of MiniLM are not installed")
    return _made_once(path, lambda: encoders.minilm(shared_folder))


def _made_by(python: str, write: str, folder: Path) -> Path:
    """Let another Python call a function of `tests.encoders`, which writes into `folder`, and return what that returns."""
    code = f"from pathlib import Path; from tests.encoders import *; print({write}(Path({str(folder)!r})))"
    root = Path(__file__).parents[1]
    said = subprocess.run([python, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert not said.returncode, said.stderr
    return Path(said.stdout.splitlines()[-1])


def _made_once(path: Path, make: Callable[[], Path]) -> Path:
    """Return `path` once a worker has made it."""
    done = path.with_suffix(".done")  # an export that fails leaves half a file
    with FileLock(path.with_suffix(".lock")):
        if not done.exists():
            assert make() == path
            done.touch()
    return path
