"""Run `ffc check` in GitHub Actions: reports in a folder, the summary of the job, annotations, and outputs of the step.

The step goes on where the check fails, so that the comment is written; the last step of the action fails by its code.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

MARKER = "<!-- ffc diff check -->"
"""The first line of the Markdown that `ffc check` writes, by which its comment is found."""

REPORTS = ("check.md", "check.json", "check.sarif", "check.xml")

ENDS = {
    1: "a model is not what its lock says, or a pass broke its contract",
    2: "the policy or an argument is malformed",
    3: "a lock or a model is missing or broken",
    4: "a pass cannot be applied to a model",
    5: "something is missing from the environment",
}


def main() -> None:
    """Check, and say what came of it."""
    folder = Path(os.environ["FFC_REPORTS"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in REPORTS:
        (folder / name).unlink(missing_ok=True)
    code, error = run(command(os.environ, folder))
    if code and not (folder / "check.md").exists():
        (folder / "check.md").write_text(unfinished(code, error), encoding="utf-8")
    if code:
        print(f"::error title=ffc check::{escaped(said(code, error))}")
    append("GITHUB_STEP_SUMMARY", (folder / "check.md").read_text(encoding="utf-8"))
    outputs = {"code": str(code), "passed": truth(code == 0), "changed": truth(code != 0 or changed(folder))}
    append("GITHUB_OUTPUT", "".join(f"{name}={value}\n" for name, value in outputs.items()))


def command(inputs: Mapping[str, str], folder: Path) -> list[str]:
    """Return the command, with the inputs of the action."""
    locks = [line.strip() for line in inputs["FFC_LOCKS"].splitlines() if line.strip()]
    policy = [f"--policy={inputs['FFC_POLICY']}"] if inputs["FFC_POLICY"] else []
    reports = [f"--report={folder / name}" for name in REPORTS]
    return [sys.executable, "-m", "ffc", "check", "--annotate", *policy, *reports, "--", *locks]


def run(words: list[str]) -> tuple[int, str]:
    """Run a command, its output shown, and return its exit code and the line of its error."""
    error = ""
    with subprocess.Popen(words, stderr=subprocess.PIPE, encoding="utf-8", errors="replace") as running:
        assert running.stderr is not None
        for line in running.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            if line.startswith("ffc: error: "):
                error = line.removeprefix("ffc: error: ").strip()
    return running.returncode, error


def said(code: int, error: str) -> str:
    """Say how a check that does not pass ended."""
    return f"{ENDS.get(code, 'ffc itself failed')} (exit code {code}){f': {error}' if error else ''}"


def unfinished(code: int, error: str) -> str:
    """Return the Markdown of a check that ended before there was anything to report."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", error) or [""]))
    return f"{MARKER}\n### ffc check: could not finish\n\n{fence}\n{said(code, error)}\n{fence}\n"


def escaped(text: str) -> str:
    """Return text as the message of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def changed(folder: Path) -> bool:
    """Whether any graph is another than its lock says."""
    checks = json.loads((folder / "check.json").read_text(encoding="utf-8"))["checks"]
    return any("error" in each or not each["diff"]["equal"] for each in checks)


def truth(value: bool) -> str:
    """Return a truth as GitHub writes it."""
    return "true" if value else "false"


def append(variable: str, text: str) -> None:
    """Append to a file that GitHub names in the environment."""
    with open(os.environ[variable], "a", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
