"""A diff as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from ffc.ci.diff.changes import Change
from ffc.ci.diff.diff import Diff
from ffc.graph.cost import BATCH, LENGTH

__all__ = ["FORMAT", "change_data", "to_data", "to_json"]

FORMAT = "ffc.diff/1"


def to_json(found: Diff) -> str:
    """Write a diff as JSON, ending with a newline."""
    return json.dumps(to_data(found), indent=2) + "\n"


def to_data(found: Diff) -> dict[str, Any]:
    """Return a diff as plain data."""
    sides = [
        {"name": snapshot.name, "cost": dataclasses.asdict(cost)}
        for snapshot, cost in zip((found.before, found.after), found.costs, strict=True)
    ]
    return {
        "format": FORMAT,
        "equal": found.equal,
        "before": sides[0],
        "after": sides[1],
        "batch": BATCH,
        "length": LENGTH,
        "groups": [
            {
                "kind": group.kind,
                "what": group.what,
                "count": group.count,
                "by": group.by,
                "where": group.where,
                "changes": [change_data(change, found) for change in group.changes],
            }
            for group in found.groups
        ],
    }


def change_data(change: Change, found: Diff) -> dict[str, Any]:
    """Return one change as plain data, its nodes by name."""
    before, after = found.before.graph.nodes, found.after.graph.nodes
    return {
        "where": change.where,
        "scope": change.scope,
        "before": [before[index].name for index in change.before],
        "after": [after[index].name for index in change.after],
        "detail": dict(change.detail),
    }
