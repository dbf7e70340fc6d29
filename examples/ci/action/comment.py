"""Write the Markdown of `ffc check` into a comment on the pull request: one comment, which later runs edit.

It is found by the hidden line that the Markdown begins with. Whatever goes wrong here is a remark in the log: whether
the check passed is another step's to say.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

LONGEST = 65_000
"""Characters; GitHub takes 65,536."""

A_PAGE = 100


def main() -> None:
    """Write or edit the comment, or say why there is none."""
    event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
    pull = event.get("pull_request")
    if not pull:
        print("::notice title=ffc check::no pull request, so no comment; the summary of the job says the same")
        return
    if (pull["head"]["repo"] or {}).get("full_name") != event["repository"]["full_name"]:
        print("::notice title=ffc check::a pull request from a fork may not comment; see the summary of the job")
        return
    text = (Path(os.environ["FFC_REPORTS"]) / "check.md").read_text(encoding="utf-8")
    try:
        write(f"repos/{os.environ['GITHUB_REPOSITORY']}/issues", int(pull["number"]), text)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        reason = " ".join((getattr(error, "stderr", "") or str(error)).split()).replace("%", "%25")
        print(f"::warning title=ffc check::the comment could not be written: {reason}")


def write(issues: str, number: int, text: str) -> None:
    """Edit the comment of an earlier run, or write one where anything changed."""
    marker = text.partition("\n")[0]
    found = next((each for each in comments(f"{issues}/{number}/comments") if is_own(each, marker)), None)
    body = {"body": shortened(text)}
    if found:
        gh(f"{issues}/comments/{found['id']}", "PATCH", body)
    elif os.environ["FFC_CHANGED"] == "true":
        gh(f"{issues}/{number}/comments", "POST", body)


def is_own(comment: dict[str, Any], marker: str) -> bool:
    """Whether a comment is one of an earlier run, and not one of somebody who copied its first line."""
    return bool(comment["user"]["type"] == "Bot" and comment["body"].partition("\n")[0].rstrip() == marker)


def comments(path: str) -> list[dict[str, Any]]:
    """Return all comments of a pull request."""
    found: list[dict[str, Any]] = []
    for page in range(1, 100):
        more = gh(f"{path}?per_page={A_PAGE}&page={page}")
        found += more
        if len(more) < A_PAGE:
            break
    return found


def shortened(text: str) -> str:
    """Return what fits into a comment, cut between lines."""
    if len(text) <= LONGEST:
        return text
    cut = text[: text.rindex("\n", 0, LONGEST) + 1]
    end = "\n</details>\n" if cut.count("<details>") > cut.count("</details>") else ""
    return f"{cut}{end}\nThe rest is in the summary of the job.\n"


def gh(path: str, method: str = "GET", data: object = None) -> Any:
    """Ask GitHub's API."""
    sent = [] if data is None else ["--input", "-"]
    command = ["gh", "api", "--method", method, path, *sent]
    given = "" if data is None else json.dumps(data)
    done = subprocess.run(command, input=given, capture_output=True, encoding="utf-8", check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
