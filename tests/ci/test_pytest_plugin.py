"""The pytest plugin: tests that fail where a model is not what its lock says, and the option that writes locks."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ffc.ci.lock import check as checks
from ffc.ci.lock import policy
from ffc.ci.reports import terminal
from tests.checkout import ROOT
from tests.ci.lock import small

pytest_plugins = ["pytester"]

PLUGINS = ("-p", "no:cacheprovider", "-p", "ffc.ci.pytest_plugin")
LOADED = (checks, policy, terminal)
"""What the plugin imports when it is used: a run inside of this one forgets what it imported itself."""

TEST = """
from ffc.ci.pytest_plugin import FfcLock

def test_graph(ffc_lock: FfcLock) -> None:
    assert ffc_lock("models/m.onnx", {arguments}).cost.nodes > 0
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return a project with a model and a test of it."""
    # The plugin by its module, whether or not what is installed declares it.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (pytester.path / "models").mkdir()
    small.save(pytester.path / "models/m.onnx")
    write_test(pytester)
    return pytester


def write_test(project: pytest.Pytester, arguments: str = "passes=None") -> None:
    project.makepyfile(test_it=TEST.format(arguments=arguments))


def run(project: pytest.Pytester, *arguments: str, passed: int = 0, failed: int = 0) -> list[str]:
    """Run the tests of the project, check how many pass and fail, and return the lines of output."""
    result = project.runpytest_inprocess(*PLUGINS, *arguments)
    result.assert_outcomes(passed=passed, failed=failed)
    return result.outlines


def test_a_missing_lock_fails_and_is_written_on_request(project: pytest.Pytester) -> None:
    lines = run(project, failed=1)
    lock = project.path / "models/m.ffc.lock"
    assert f"lock {lock} does not exist; pytest --ffc-accept writes it" in "\n".join(lines)
    assert not any("Traceback" in line or "pytest_plugin.py" in line for line in lines)
    lines = run(project, "--ffc-accept", passed=1)
    assert "models/m.ffc.lock" in lines and any("ffc locks written" in line for line in lines)
    assert lock.read_text(encoding="utf-8").startswith("ffc.lock/1\n")
    assert not any("ffc locks written" in line for line in run(project, "--ffc-accept", passed=1))
    run(project, passed=1)


def test_a_changed_model_fails_with_what_changed(project: pytest.Pytester) -> None:
    run(project, "--ffc-accept", passed=1)
    small.save(project.path / "models/m.onnx", small.change_epsilon)
    text = "\n".join(run(project, failed=1))
    assert "LayerNormalization epsilon: 1e-12 → 0.001" in text
    assert "FAILED test_it.py::test_graph - Failed: models/m.ffc.lock: fails, 1 change:" in text
    assert "models/m.ffc.lock" in run(project, "--ffc-accept", passed=1)
    run(project, passed=1)


def test_another_pipeline_needs_another_lock(project: pytest.Pytester) -> None:
    run(project, "--ffc-accept", passed=1)
    write_test(project, "passes='fuse'")
    text = "\n".join(run(project, failed=1))
    assert "is of the model as it is, and the test asks for 'fuse' for cpu; pytest --ffc-accept writes it anew" in text
    run(project, "--ffc-accept", passed=1)
    run(project, passed=1)
    assert "\npipeline fuse\n" in (project.path / "models/m.ffc.lock").read_text(encoding="utf-8")


@pytest.mark.parametrize("given", ["policy='p.toml'", "policy=__import__('ffc').Policy(fail=('interface',))"])
def test_a_policy_says_what_may_change(given: str, project: pytest.Pytester) -> None:
    run(project, "--ffc-accept", passed=1)
    (project.path / "p.toml").write_text("[tool.ffc.check]\nfail = ['interface']\n", encoding="utf-8")
    small.save(project.path / "models/m.onnx", small.change_epsilon)
    write_test(project, f"passes=None, {given}")
    run(project, passed=1)


def test_a_model_made_by_tests_has_its_lock_where_it_is_said(project: pytest.Pytester, tmp_path_factory: pytest.TempPathFactory) -> None:
    made = small.save(tmp_path_factory.mktemp("made") / "n.onnx")
    test = "def test_made(ffc_lock):\n    ffc_lock({model!r}, None{lock})\n"
    project.makepyfile(test_it=test.format(model=str(made), lock=""))
    assert "lies outside of the project" in "\n".join(run(project, "--ffc-accept", failed=1))
    assert not made.with_name("n.ffc.lock").exists()
    project.makepyfile(test_it=test.format(model=str(made), lock=", lock='tests/locks/n.ffc.lock'"))
    assert "tests/locks/n.ffc.lock" in run(project, "--ffc-accept", passed=1)
    text = (project.path / "tests/locks/n.ffc.lock").read_text(encoding="utf-8")
    assert "\nsource n.onnx\n" in text and str(made.parent) not in text
    run(project, passed=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("passes='fuze'", "unknown pass 'fuze' at column 1 of 'fuze'; did you mean 'fuse'?"),
        ("passes=None, lock='broken.ffc.lock'", "is empty or truncated"),
        ("passes=None, policy='models'", "models"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments: str, said: str, project: pytest.Pytester) -> None:
    run(project, "--ffc-accept", passed=1)
    (project.path / "broken.ffc.lock").write_text("", encoding="utf-8")
    write_test(project, arguments)
    lines = run(project, failed=1)
    assert said in "\n".join(lines)
    assert not any("Traceback" in line or "pytest_plugin.py" in line for line in lines)


def test_workers_of_xdist_write_locks_and_the_end_tells(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    small.save(project.path / "models/n.onnx", seed=1)
    project.makepyfile(
        test_it="import pytest\n\n@pytest.mark.parametrize('name', 'mn')\n"
        "def test_graph(ffc_lock, name):\n    ffc_lock(f'models/{name}.onnx', None)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = project.runpytest_subprocess(*PLUGINS, "-p", "xdist", "-n", "2", "--ffc-accept")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*ffc locks written*", "models/m.ffc.lock", "models/n.ffc.lock"])


def test_the_plugin_costs_other_projects_nothing(tmp_path: Path) -> None:
    code = "import ffc.ci.pytest_plugin, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    there = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=there, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"numpy", "onnx", "onnx_ir", "onnxruntime", "pydantic", "rich", "click"} & set(done.stdout.split())


def test_the_plugin_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"ffc": "ffc.ci.pytest_plugin"}
