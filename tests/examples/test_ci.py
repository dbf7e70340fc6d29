"""The examples for CIs: every step of the action and of the job is run here, on a small model."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from ffc import cli
from ffc.ci.lock import check as checks
from ffc.ci.reports import markdown
from ffc.graph import files
from tests import checkout
from tests.checkout import EXAMPLES, ROOT
from tests.ci.lock import small
from tests.examples import actions

CI = EXAMPLES / "ci"
ACTION = CI / "action"
MARKER = "<!-- ffc diff check -->"


def read(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def place(model: Path, edit: small.Edit | None = None) -> None:
    """Write a model and its lock, and then the model again, edited."""
    model.parent.mkdir(parents=True, exist_ok=True)
    checks.lock(small.save(model), None)
    small.save(model, edit)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a checkout with a model and its lock, in a folder with a space in its name."""
    place(tmp_path / "work space" / "models" / "m.onnx")
    return tmp_path / "work space"


@pytest.fixture
def hub(tmp_path: Path) -> actions.Hub:
    return actions.Hub(tmp_path / "hub")


class TestAction:
    """The composite action, step by step."""

    def test_a_pull_request_gets_one_comment_that_follows_it(self, workspace: Path, hub: actions.Hub) -> None:
        model, there = workspace / "models/m.onnx", {**hub.environment(), "PYTHONPATH": str(ROOT)}
        inputs = {"package": "", "locks": "\n models/m.ffc.lock \n"}

        done = actions.run(ACTION, workspace, there, inputs)
        assert (done.code, done.outputs) == (0, {"passed": "true", "changed": "false"})
        assert done.steps == ["Check", "Comment", "Verdict"]
        assert "### ffc check: passes" in done.summary and not hub.comments

        small.save(model, small.change_epsilon)
        done = actions.run(ACTION, workspace, there, inputs)
        assert (done.code, done.outputs) == (1, {"passed": "false", "changed": "true"})
        assert "::error file=models/m.ffc.lock,line=1,title=ffc check%3A attribute::LayerNormalization epsilon" in done.log
        assert "::error title=ffc check::a model is not what its lock says, or a pass broke its contract (exit code 1)" in done.log
        assert len(hub.comments) == 1 and "LayerNormalization epsilon: 1e-12 → 0.001" in hub.comments[0]
        assert hub.comments[0] == done.summary == (workspace / "ffc-reports/check.md").read_text(encoding="utf-8")
        results = json.loads((workspace / "ffc-reports/check.sarif").read_text(encoding="utf-8"))["runs"][0]["results"]
        assert [each["ruleId"] for each in results] == ["ffc/attribute"]
        assert "<failure " in (workspace / "ffc-reports/check.xml").read_text(encoding="utf-8")

        small.save(model)
        done = actions.run(ACTION, workspace, there, inputs)
        assert done.code == 0 and len(hub.comments) == 1 and "### ffc check: passes" in hub.comments[0]

        (workspace / "models/m.ffc.lock").write_text("<<<<<<< ours\n", encoding="utf-8")
        done = actions.run(ACTION, workspace, there, inputs)
        assert done.code == 3 and "::error title=ffc check::a lock or a model is missing or broken (exit code 3)" in done.log
        assert len(hub.comments) == 1 and "could not be checked: lock models/m.ffc.lock holds a conflict" in hub.comments[0]
        assert [call for call in hub.calls if call != "GET"] == ["POST", "PATCH", "PATCH"]

    def test_a_malformed_policy_is_another_failure_than_a_changed_model(self, workspace: Path, hub: actions.Hub) -> None:
        (workspace / "p.toml").write_text("[tool.ffc.check]\nbudgets = 3\n", encoding="utf-8")
        inputs = {"package": "", "policy": "p.toml", "comment": "false"}
        done = actions.run(ACTION, workspace, {**hub.environment(), "PYTHONPATH": str(ROOT)}, inputs)
        assert done.code == 2 and "the policy or an argument is malformed (exit code 2): p.toml:2: unknown key" in done.log
        assert done.summary.startswith(f"{MARKER}\n### ffc check: could not finish\n")
        assert sorted(path.name for path in (workspace / "ffc-reports").iterdir()) == ["check.md"]
        assert done.steps == ["Check", "Verdict"] and not hub.calls

    def test_the_package_is_installed_by_pip(self, workspace: Path, hub: actions.Hub, tmp_path: Path) -> None:
        source = tmp_path / "own_pass"
        source.mkdir()
        for file in ("pyproject.toml", "README.md", "fast_gelu.py"):
            (source / file).write_bytes((EXAMPLES / "own_pass" / file).read_bytes())
        there = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_TARGET": str(tmp_path / "site")}
        inputs = {"package": str(source), "policy": "no.toml", "comment": "false"}
        done = actions.run(ACTION, workspace, {**hub.environment(), **there, "PYTHONPATH": str(ROOT)}, inputs)
        assert done.steps == ["Install ffc", "Check", "Verdict"], done.log
        assert (tmp_path / "site" / "fast_gelu.py").exists() and done.code == 3


class TestComment:
    """The script that writes the comment."""

    @pytest.fixture
    def ran(self, workspace: Path, hub: actions.Hub, monkeypatch: pytest.MonkeyPatch) -> Any:
        script = checkout.load("ci/action/comment")
        monkeypatch.chdir(workspace)
        Path("ffc-reports").mkdir()
        Path("ffc-reports/check.md").write_text(f"{MARKER}\nnew\n", encoding="utf-8")

        def run(**options: str) -> None:
            given = {"GH_TOKEN": "a token", "FFC_REPORTS": "ffc-reports", "FFC_CHANGED": "true"}
            for name, value in {**hub.environment(**options), **given}.items():
                monkeypatch.setenv(name, value)
            script.main()

        return run

    def test_a_fork_has_no_token_that_may_write(self, ran: Any, hub: actions.Hub, capsys: pytest.CaptureFixture[str]) -> None:
        ran(head="stranger/it")
        assert "::notice title=ffc check::a pull request from a fork may not comment" in capsys.readouterr().out
        assert not hub.calls

    def test_a_push_has_no_pull_request(self, ran: Any, hub: actions.Hub, capsys: pytest.CaptureFixture[str]) -> None:
        ran(event="push")
        assert "::notice" in capsys.readouterr().out and not hub.calls

    def test_a_token_that_may_not_write_is_a_warning(self, ran: Any, hub: actions.Hub, capsys: pytest.CaptureFixture[str]) -> None:
        hub.write(readonly=True)
        ran()
        out = capsys.readouterr().out
        assert out.startswith("::warning title=ffc check::") and "HTTP 403" in out and out.count("\n") == 1

    def test_what_others_wrote_stays(self, ran: Any, hub: actions.Hub) -> None:
        others = [
            {"id": 1, "body": f"{MARKER}\nmine", "user": {"type": "User"}},
            {"id": 2, "body": f"see\n{MARKER}", "user": {"type": "Bot"}},
        ]
        hub.write(others)
        ran()
        ran()
        assert hub.comments == [f"{MARKER}\nmine", f"see\n{MARKER}", f"{MARKER}\nnew\n"]

    def test_it_is_found_among_many(self, ran: Any, hub: actions.Hub) -> None:
        many = [{"id": number, "body": "x", "user": {"type": "User"}} for number in range(1, 251)]
        hub.write([*many, {"id": 251, "body": f"{MARKER}\r\nold", "user": {"type": "Bot"}}])
        ran()
        assert hub.calls == ["GET", "GET", "GET", "PATCH"] and hub.comments[250] == f"{MARKER}\nnew\n"

    def test_a_long_one_is_cut_between_lines(self, ran: Any, hub: actions.Hub) -> None:
        text = f"{MARKER}\n<details><summary>9 more</summary>\n\n" + f"| {'x' * 98} |\n" * 900
        Path("ffc-reports/check.md").write_text(text, encoding="utf-8")
        ran()
        (comment,) = hub.comments
        assert comment.count("</details>") == 1 and comment.endswith("The rest is in the summary of the job.\n")
        assert set(comment.splitlines()[3:600]) == {f"| {'x' * 98} |"}


def test_scripts_know_the_line_by_which_a_comment_is_found() -> None:
    assert checkout.load("ci/action/check").MARKER == markdown.marker("check") == MARKER


def test_an_error_cannot_leave_its_fence() -> None:
    script = checkout.load("ci/action/check")
    lines = script.unfinished(3, "a ```` b").splitlines()
    assert lines[3] == lines[5] == "`" * 5
    assert script.escaped("a\n::error::%0A") == "a%0A::error::%250A"


@pytest.mark.parametrize("file", ["action/action.yml", "github/workflow.yml"])
def test_nothing_from_outside_stands_in_a_script(file: str) -> None:
    data = read(CI / file)
    steps = data["runs"]["steps"] if "runs" in data else data["jobs"]["check"]["steps"]
    assert not [step["run"] for step in steps if "${{" in step.get("run", "")]


def test_the_workflow_gives_no_more_rights_than_it_takes() -> None:
    data = read(CI / "github/workflow.yml")
    assert data["permissions"] == {"contents": "read", "pull-requests": "write", "security-events": "write"}
    assert data[True] == "pull_request"  # YAML reads `on` as true
    used = [step["uses"] for step in data["jobs"]["check"]["steps"]]
    assert all(name.startswith(("actions/", "github/", "./.github/actions/ffc-check")) for name in used)


def test_the_workflow_gives_the_action_inputs_that_it_has() -> None:
    (step,) = (step for step in read(CI / "github/workflow.yml")["jobs"]["check"]["steps"] if step["uses"].startswith("./"))
    assert step["with"].keys() <= read(ACTION / "action.yml")["inputs"].keys()


class TestPreCommit:
    """The hook."""

    HOOK = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))[0]

    @pytest.mark.parametrize("passed", [[], ["models/m.ffc.lock"], ["models/m.ffc.lock", "models/n.ffc.lock"]])
    def test_its_command_works_on_what_pre_commit_passes(
        self, passed: list[str], workspace: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(workspace)
        place(workspace / "models/n.onnx")
        program, *arguments = shlex.split(self.HOOK["entry"])
        assert program == "ffc"
        assert cli.main([*arguments, *passed]) == 0
        small.save(workspace / "models/m.onnx", small.change_epsilon)
        assert cli.main([*arguments, *passed]) == 1

    @pytest.mark.parametrize(
        ("name", "concerned"),
        [("m.ffc.lock", True), ("a/m.onnx", True), ("m.onnx.data", True), ("m.onnx_data", True), ("m.py", False), ("onnx", False)],
    )  # fmt: skip
    def test_it_runs_when_a_model_or_a_lock_changes(self, name: str, concerned: bool) -> None:
        assert bool(re.search(self.HOOK["files"], name)) == concerned
        assert self.HOOK["language"] == "python" and not self.HOOK["pass_filenames"]

    def test_the_example_names_a_hook_that_there_is(self) -> None:
        (repo,) = read(CI / "pre-commit/.pre-commit-config.yaml")["repos"]
        assert [hook["id"] for hook in repo["hooks"]] == [self.HOOK["id"]]


class _Gitlab(BaseHTTPRequestHandler):
    """GitLab's API for notes of merge request 5 of project 3."""

    notes: ClassVar[list[dict[str, Any]]] = []
    writes: ClassVar[list[str]] = []

    def answer(self, data: object, status: int = 200) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(data).encode())

    def do_GET(self) -> None:
        assert self.headers["PRIVATE-TOKEN"] == "secret"
        found = re.fullmatch(r"/api/v4/projects/3/merge_requests/5/notes\?per_page=100&page=(\d)", self.path)
        self.answer({"id": 9} if found is None else self.notes if found[1] == "1" else [])

    def do_POST(self) -> None:
        assert self.path == "/api/v4/projects/3/merge_requests/5/notes"
        self.notes.append({"id": len(self.notes) + 1, "author": {"id": 9}, **self.read()})
        self.answer(self.notes[-1], 201)

    def do_PUT(self) -> None:
        number = int(self.path.removeprefix("/api/v4/projects/3/merge_requests/5/notes/"))
        self.notes[number - 1].update(self.read())
        self.answer(self.notes[number - 1])

    def read(self) -> dict[str, str]:
        self.writes.append(self.command)
        found: dict[str, str] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return found

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class TestGitlab:
    """The job for GitLab, and the script that writes its note."""

    JOB = read(CI / "gitlab/.gitlab-ci.yml")["ffc-check"]

    @pytest.fixture
    def gitlab(self) -> Iterator[dict[str, str]]:
        _Gitlab.notes[:] = [{"id": 1, "author": {"id": 8}, "body": f"{MARKER}\nof somebody else"}]
        _Gitlab.writes.clear()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Gitlab)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = {"CI_API_V4_URL": f"http://127.0.0.1:{server.server_port}/api/v4", "CI_PROJECT_ID": "3"}
        yield {**there, "CI_MERGE_REQUEST_IID": "5", "FFC_NOTE_TOKEN": "secret"}
        server.shutdown()
        server.server_close()

    def run(self, part: str, workspace: Path, **given: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the job, as a runner does: all its lines in one shell that stops at the first that fails."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        there = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(workspace), **given}
        return subprocess.run(
            ["bash", "-eo", "pipefail", "-c", "\n".join(self.JOB[part])],
            cwd=workspace, env=there, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip

    def test_the_job_fails_with_reports_and_one_note(self, workspace: Path, gitlab: dict[str, str]) -> None:
        (workspace / "ci").mkdir()
        (workspace / "ci/note.py").write_bytes((CI / "gitlab/note.py").read_bytes())
        small.save(workspace / "models/m.onnx", small.change_epsilon)
        assert self.run("script", workspace).returncode == 1
        assert (workspace / self.JOB["artifacts"]["reports"]["junit"]).exists()
        for _ in range(2):
            done = self.run("after_script", workspace, **gitlab)
            assert done.returncode == 0, done.stderr
        assert [note["id"] for note in _Gitlab.notes] == [1, 2] and _Gitlab.writes == ["POST", "PUT"]
        assert _Gitlab.notes[1]["body"] == (workspace / "check.md").read_text(encoding="utf-8")
        assert _Gitlab.notes[0]["body"].endswith("of somebody else")

    @pytest.mark.parametrize("missing", ["FFC_NOTE_TOKEN", "CI_MERGE_REQUEST_IID"])
    def test_without_a_token_or_a_merge_request_there_is_no_note(
        self, missing: str, workspace: Path, gitlab: dict[str, str]
    ) -> None:
        (workspace / "check.md").write_text("x", encoding="utf-8")
        assert self.run("after_script", workspace, **{**gitlab, missing: ""}).returncode == 0
        assert not _Gitlab.writes


class TestGit:
    """`ffc print` as the filter by which git shows models."""

    @pytest.fixture
    def git(self, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Return a function that runs git in a repository that shows models by the two lines of the documents."""
        setup = re.search(r"^git config (diff\.onnx\.textconv) '(.+)'$", (ROOT / "docs/ci.md").read_text(encoding="utf-8"), re.MULTILINE)
        assert setup
        attributes = re.search(r"^\*\.onnx diff=onnx$", (ROOT / "docs/ci.md").read_text(encoding="utf-8"), re.MULTILINE)
        assert attributes
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)

        def run(*words: str) -> str:
            command = ["git", "-c", "user.name=me", "-c", "user.email=me@example.com", *words]
            return subprocess.run(command, cwd=workspace, capture_output=True, encoding="utf-8", check=True).stdout

        run("init", "--quiet")
        run("config", setup[1], setup[2])
        (workspace / ".gitattributes").write_text(f"{attributes[0]}\n", encoding="utf-8")
        run("add", ".")
        run("commit", "--quiet", "--message=first")
        return run

    @staticmethod
    def changed(diff: str) -> list[str]:
        return [line for line in diff.splitlines() if re.match(r"[+-](?![+-]{2} )", line)]

    def test_a_changed_attribute_is_one_line(self, git: Any, workspace: Path) -> None:
        small.save(workspace / "models/m.onnx", small.change_epsilon)
        gone, come = self.changed(git("diff"))
        assert gone == come.replace("epsilon=0.001", "epsilon=1e-12").replace("+", "-", 1)
        git("commit", "--quiet", "--all", "--message=second")
        git("config", "diff.onnx.cachetextconv", "true")
        first, second = (git("log", "--patch", "--", "*.onnx") for _ in range(2))
        assert first == second and gone in first and come in first

    def test_external_data_do_not_stop_git(self, git: Any, workspace: Path) -> None:
        model = files.load(workspace / "models/m.onnx")
        small.change_epsilon(model)
        files.save(model, workspace / "models/m.onnx", external=True)
        git("add", ".")
        git("commit", "--quiet", "--message=second")
        assert any("epsilon=0.001" in line for line in self.changed(git("show", "--", "*.onnx")))

    def test_what_is_no_model_does_not_stop_git(self, git: Any, workspace: Path) -> None:
        (workspace / "models/m.onnx").write_bytes(b"")
        assert "+# it is empty; export the model again" in self.changed(git("diff"))
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 5\n"
        (workspace / "models/m.onnx").write_text(pointer, encoding="utf-8")
        assert "+# kept in Git LFS: oid sha256:1234" in self.changed(git("diff"))


def test_a_pointer_of_git_lfs_is_named_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 5\n", encoding="utf-8")
    assert cli.main(["print", str(path)]) == 3
    assert "it is a pointer of Git LFS and not the model; run `git lfs pull`" in capsys.readouterr().err
