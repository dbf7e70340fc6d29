"""The axis of the tokens is told by the names of dimensions."""

from __future__ import annotations

import pytest

from ffc.compiler.proof.probing.layout import layout_of
from ffc.compiler.proof.probing.token_axes import token_places
from ffc.graph.shapes.inference import infer
from tests.compiler.proof.masked_attention import INT64
from tests.graphs import Draft


def axes(output: tuple[int | str, ...], mask: tuple[int | str, ...] = ("batch", "seq")) -> int | str | None:
    draft = Draft()
    given = draft.input("attention_mask", *mask, dtype=INT64)
    result = draft.op.node("Unknown", given)
    model = draft.model({"y": (result, output)})
    dims = layout_of(model).shapes["attention_mask"]
    found = token_places(model, infer(model), dims[0], dims[-1]).get("y")
    return "by size" if found is None else found.axis


@pytest.mark.parametrize(
    ("output", "axis"),
    [
        (("batch", "seq", 12), 1), (("batch", "seq"), 1), (("batch", 3, "seq", "seq"), 2), (("batch", 12), 0),
        (("batch", 12, 4), 0), ((3, 12), None), (("batch", "other", 4), "by size"), (("batch", "labels"), 0),
    ],
)  # fmt: skip
def test_dimensions_name_the_axis_of_the_tokens(output: tuple[int | str, ...], axis: int | str | None) -> None:
    assert axes(output) == axis


def test_equal_numbers_are_tokens_only_in_outputs_of_vectors() -> None:
    assert axes((1, 6, 4), (1, 6)) == 1
    assert axes((1, 6), (1, 6)) == 0
    assert axes(("batch", 6, 4), ("batch", 6)) == 1
