"""Five encoders, each exported five ways, bare and with a head: found, fused, pruned, quantised, and right each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.coverage import matrix, tables
from tests.shared_steps import shared_steps

TITLE = "exporters and encoders"


@pytest.mark.parametrize("cell", list(matrix.cells()), ids=lambda cell: cell.name)
def test_every_block_is_found_and_every_pass_is_right(
    cell: matrix.Cell, exported: Callable[..., Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    row = dict.fromkeys(matrix.HEADING, "-")
    row |= {"encoder": cell.kind, "exporter": cell.way, "end": "head" if cell.head else "bare"}
    try:
        path = exported(cell.kind, way=cell.way, head=cell.head, layers=matrix.LAYERS)
        row["found"] = matrix.found(cell, path)
        with shared_steps():
            row["fused"], row["equal"] = matrix.fused(cell, path)
            row["pruned"], row["int8"] = matrix.pruned(cell, path, tmp_path)
            row["fp16"] = matrix.halved(path)
    finally:
        record_property(tables.named(TITLE), row)
