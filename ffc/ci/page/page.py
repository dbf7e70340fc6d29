"""One HTML page that draws a model, or what changed between two, and needs nothing else: no network, no other file.

What a model says reaches the page as JSON in which no character can end it, and the page shows it as text alone. The
page's own policy lets run the one script that it was made with.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from ffc.ci.diff.diff import Diff
from ffc.ci.matching.snapshot import Snapshot
from ffc.ci.page import records
from ffc.errors import one_line
from ffc.graph.cost import Cost
from ffc.tables.html import render

__all__ = ["diff_page", "model_page"]

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("model.js", "order.js", "layout.js", "cards.js", "pane.js", "panel.js", "changes.js", "main.js")
"""In the order in which they need each other."""


def diff_page(found: Diff) -> str:
    """Draw two models side by side and what changed between them, as one HTML page."""
    return _page(f"{found.before.name} → {found.after.name}", records.of_diff(found))


def model_page(snapshot: Snapshot, cost: Cost) -> str:
    """Draw one model, and what it costs at batch 1 and 128 tokens, as one HTML page."""
    return _page(snapshot.name, records.of_snapshot(snapshot, cost))


def _page(title: str, data: Mapping[str, object]) -> str:
    style = (_TEMPLATES / "graph.css").read_text(encoding="utf-8")
    script = "\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return render(
        _TEMPLATES / "graph.html",
        title=one_line(title),
        style=Markup(style),
        script=Markup(script),
        data=Markup(_json(data)),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _json(data: Mapping[str, object]) -> str:
    """Write JSON in which nothing can end a script, open a comment or break a line."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
