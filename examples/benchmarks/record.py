"""The record of a measurement: what a reader needs to judge the numbers, or to take them again, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ffc.runtime.machine import Machine


def save(path: Path, form: str, where: Machine, seed: int, **found: Any) -> None:
    """Write a record.

    Args:
        path: The file.
        form: Name and version of its format.
        where: The class of the machine.
        seed: The seed of all that was drawn.
        found: What was measured, and under which settings, as JSON values.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    kept = {"format": form, "date": date, "seed": seed, "machine": asdict(where), **found}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
