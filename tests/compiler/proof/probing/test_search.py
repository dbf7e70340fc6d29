"""Sizes are found at which a model runs that runs at none of the usual ones."""

from __future__ import annotations

import pytest

from ffc.compiler.proof.probing.layout import layout_of
from ffc.compiler.proof.probing.search import search
from tests.compiler.proof.probing.towers import BOOL
from tests.graphs import Draft


@pytest.mark.parametrize("queries", [1, "seq"])
@pytest.mark.parametrize("heads", [2, 12])
def test_a_mask_for_each_head_has_rows_of_its_own(queries: int | str, heads: int) -> None:
    draft = Draft()
    x, masks = draft.input("x", "batch", "seq", 8), draft.input("masks", "rows", queries, "seq", dtype=BOOL)
    model = draft.model({"y": (draft.op.node("Unknown", x, masks), ["batch", "seq", 8])})
    found = search(model, layout_of(model), lambda sizes: sizes["rows"] == heads * sizes["batch"])
    assert {sizes["batch"] for sizes in found} == {2, 3}
    assert all(sizes["rows"] == heads * sizes["batch"] for sizes in found)
