"""An explanation for the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ffc.compiler.explain.explanation import Explanation
from ffc.compiler.reports.content import changes
from ffc.compiler.survey import Finding
from ffc.errors import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["explained"]


def explained(explanation: Explanation) -> RenderableType:
    """Return an explanation for the terminal: its findings as a table, those alike in one row, then the remarks."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table("block", "layer", "size", "taken", "as what, or why not", "name", box=SIMPLE_HEAD, show_edge=False)
    grid.pad_edge = False
    findings = explanation.findings
    for alike in [[one] for one in findings] if explanation.listed else _alike(findings):
        grid.add_row(*(Text(one_line(cell)) for cell in _finding_row(alike)))
    after = f" after {', '.join(explanation.before)}" if explanation.before else ""
    refused = explanation.refused
    lines = [f"changes: {changes(explanation.changes)}" if refused is None else f"refused: {one_line(refused)}"]
    lines += [f"note: {one_line(note)}" for note in explanation.notes]
    lines += ["", "Nothing was proved and nothing written; `ffc compile` does both."]
    parts: list[RenderableType] = [Text(f"{explanation.model}: {explanation.text}{after}\n")]
    parts += [grid, Text()] if explanation.findings else []
    return Group(*parts, Text("\n".join(lines)))


_NUMBER_IN_NAME = re.compile(r"(?<=[A-Za-z_./:])\d+|_\d+")


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Put findings together that differ in layer and in the numbers of names alone."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for one in findings:
        kind, why = (_NUMBER_IN_NAME.sub("", text) for text in (one.kind, one.why))
        groups.setdefault((kind, one.layer is None, one.what, one.taken, why), []).append(one)
    return list(groups.values())


def _finding_row(alike: Sequence[Finding]) -> list[str]:
    first, *others = alike
    layers = [one.layer for one in alike if one.layer is not None]
    times = f" ×{len(alike)}" if len(alike) > len(set(layers)) and others else ""
    more = f" and {len(others)} more" if others else ""
    return [
        f"{first.kind}{times}", _ranges(sorted(set(layers))), first.what, "yes" if first.taken else "no", first.why,
        f"{first.name}{more}" if first.name else "",
    ]  # fmt: skip


def _ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers as ``0–3, 5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
