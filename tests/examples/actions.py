"""Runs the steps of a composite GitHub Action on this machine, as the runner does, with a `gh` that is none.

What it knows of expressions is what the actions of this project use: `inputs.x`, `steps.y.outputs.z`, `github.token`,
and comparisons of those with text.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SHELLS = {"bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]}

GH = '''#!{python}
"""`gh api` for comments on issues, kept in a file; exits as gh does where the token may not write."""
import json, os, re, sys
from pathlib import Path

assert os.environ["GH_TOKEN"] == "a token"
assert sys.argv[1:3] == ["api", "--method"]
method, path, rest = sys.argv[3], sys.argv[4], sys.argv[5:]
file = Path({file!r})
state = json.loads(file.read_text(encoding="utf-8"))
state["calls"].append(method)
if method == "GET":
    where, page = re.fullmatch(r"repos/me/it/issues/(7)/comments\\\\?per_page=100&page=(\\\\d+)", path).groups()
    answer = state["comments"][100 * (int(page) - 1) : 100 * int(page)]
elif state["readonly"]:
    sys.exit("gh: Resource not accessible by integration (HTTP 403)")
else:
    assert rest == ["--input", "-"]
    body = json.load(sys.stdin)["body"]
    assert len(body) < 65_536
    if method == "POST":
        assert path == "repos/me/it/issues/7/comments"
        answer = {{"id": len(state["comments"]) + 1, "body": body, "user": {{"type": "Bot"}}}}
        state["comments"].append(answer)
    else:
        assert method == "PATCH"
        number = int(re.fullmatch(r"repos/me/it/issues/comments/(\\\\d+)", path).group(1))
        (answer,) = (each for each in state["comments"] if each["id"] == number)
        answer["body"] = body
file.write_text(json.dumps(state), encoding="utf-8")
print(json.dumps(answer))
'''.replace("\\\\", "\\")


@dataclass
class Hub:
    """A pull request on something that looks like GitHub.

    Attributes:
        folder: Where it keeps its files.
    """

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir(parents=True)
        script = self.folder / "bin" / "gh"
        script.write_text(GH.format(python=sys.executable, file=str(self.folder / "gh.json")), encoding="utf-8")
        script.chmod(0o755)
        self.write()

    def write(self, comments: list[dict[str, Any]] | None = None, *, readonly: bool = False) -> None:
        """Set the comments that there are, and whether tokens may write."""
        state = {"comments": comments or [], "calls": [], "readonly": readonly}
        (self.folder / "gh.json").write_text(json.dumps(state), encoding="utf-8")

    @property
    def comments(self) -> list[str]:
        """The comments that there are."""
        return [each["body"] for each in self._state["comments"]]

    @property
    def calls(self) -> list[str]:
        """The methods by which `gh` was asked."""
        found: list[str] = self._state["calls"]
        return found

    @property
    def _state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "gh.json").read_text(encoding="utf-8"))
        return found

    def environment(self, head: str = "me/it", *, event: str = "pull_request") -> dict[str, str]:
        """Return the environment of a run, for a pull request from the repository `head`."""
        pull = {"number": 7, "head": {"repo": {"full_name": head}}}
        said = {"repository": {"full_name": "me/it"}, **({"pull_request": pull} if event == "pull_request" else {})}
        (self.folder / "event.json").write_text(json.dumps(said), encoding="utf-8")
        path = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"PATH": path, "GITHUB_EVENT_PATH": str(self.folder / "event.json"), "GITHUB_REPOSITORY": "me/it"}


@dataclass
class Ran:
    """What a run of an action came to.

    Attributes:
        code: The exit code of the step that failed, or 0.
        log: All that its steps printed.
        summary: The summary of the job.
        outputs: The outputs of the action.
        steps: The names of the steps that ran.
    """

    code: int = 0
    log: str = ""
    summary: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)


def run(action: Path, workspace: Path, environment: Mapping[str, str], inputs: Mapping[str, str]) -> Ran:
    """Run an action, up to the first step that fails.

    Args:
        action: The folder with `action.yml`.
        workspace: The checkout that it runs in.
        environment: What its steps find in their environment besides what GitHub's runner gives them.
        inputs: Its inputs; those not given have their defaults.
    """
    data = yaml.safe_load((action / "action.yml").read_text(encoding="utf-8"))
    known = {name: str(declared.get("default", "")) for name, declared in data["inputs"].items()}
    assert inputs.keys() <= known.keys()
    context = {f"inputs.{name}": str(value) for name, value in {**known, **inputs}.items()}
    context["github.token"] = "a token"
    context = {name: _filled(value, context) for name, value in context.items()}
    done = Ran()
    for step in data["runs"]["steps"]:
        if "if" in step and not _holds(step["if"], context):
            continue
        done.steps.append(step["name"])
        files = {name: workspace.parent / f"{name.lower()}.txt" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("", encoding="utf-8")
        given = {name: _filled(value, context) for name, value in step.get("env", {}).items()}
        there = {"HOME": str(workspace.parent), "GITHUB_ACTION_PATH": str(action), "GITHUB_WORKSPACE": str(workspace)}
        there |= {name: str(file) for name, file in files.items()} | dict(environment) | given
        command = [*SHELLS[step["shell"]], step["run"]]
        ended = subprocess.run(
            command, cwd=workspace, env=there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=False
        )
        done.log += ended.stdout
        done.summary += files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
        for line in files["GITHUB_OUTPUT"].read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            context[f"steps.{step.get('id', '')}.outputs.{name}"] = value
        if ended.returncode:
            done.code = ended.returncode
            break
    done.outputs = {name: _filled(declared["value"], context) for name, declared in data["outputs"].items()}
    return done


def _filled(text: str, context: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ *([\w.-]+) *\}\}", lambda found: context[found[1]], str(text))


def _holds(condition: str, context: Mapping[str, str]) -> bool:
    found = re.fullmatch(r"([\w.-]+) (==|!=) '(.*)'", condition)
    assert found, condition
    name, operator, value = found.groups()
    return (context[name] == value) == (operator == "==")
