"""Write the Markdown of `ffc check` into a note on the merge request: one note, which later runs edit.

It is found by the hidden line that the Markdown begins with, among those that the token's own user wrote.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

A_PAGE = 100
SECONDS = 30


def main(path: str) -> int:
    """Write or edit the note, and return the exit code."""
    text = Path(path).read_text(encoding="utf-8")
    marker = text.partition("\n")[0]
    notes = f"projects/{os.environ['CI_PROJECT_ID']}/merge_requests/{os.environ['CI_MERGE_REQUEST_IID']}/notes"
    try:
        me = ask("user")["id"]
        found = next((each for each in listed(notes) if is_own(each, me, marker)), None)
        if found:
            ask(f"{notes}/{found['id']}", "PUT", {"body": text})
        else:
            ask(notes, "POST", {"body": text})
    except URLError as error:
        print(f"the note could not be written: {error}", file=sys.stderr)
        return 1
    return 0


def is_own(note: dict[str, Any], me: int, marker: str) -> bool:
    """Whether a note is one of an earlier run."""
    return bool(note["author"]["id"] == me and note["body"].partition("\n")[0].rstrip() == marker)


def listed(notes: str) -> list[dict[str, Any]]:
    """Return all notes of a merge request."""
    found: list[dict[str, Any]] = []
    for page in range(1, 100):
        more = ask(f"{notes}?per_page={A_PAGE}&page={page}")
        found += more
        if len(more) < A_PAGE:
            break
    return found


def ask(path: str, method: str = "GET", data: object = None) -> Any:
    """Ask GitLab's API."""
    headers = {"PRIVATE-TOKEN": os.environ["FFC_NOTE_TOKEN"], "Content-Type": "application/json"}
    sent = None if data is None else json.dumps(data).encode()
    request = Request(f"{os.environ['CI_API_V4_URL']}/{path}", sent, headers, method=method)
    with urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
