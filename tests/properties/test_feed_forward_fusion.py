"""Property: feed-forward networks in any form are fused and right; what is something else is right, whatever became of it."""

from __future__ import annotations

import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import Draft
from tests.properties.attention_forms import WIDTH
from tests.properties.drafts import assert_right, cases, fused, upstream
from tests.properties.feed_forward_forms import GELUS, FeedForwardForm, FeedForwardWriter, feed_forward_forms
from tests.properties.product_forms import BARE

FORMS = 16
"""How many forms share a model, and the price of running it."""


def model_of(forms: list[FeedForwardForm], dynamic: bool) -> ir.Model:
    """Return a model with one network of each form, side by side, with outputs ``y0``, ``y1``, …."""
    draft = Draft(len(forms))
    writer = FeedForwardWriter(draft, *(("batch", "seq") if dynamic else (2, 4)))
    for index, form in enumerate(forms):
        writer.outputs[f"y{index}"] = (writer.write(f"f{index}", form), [writer.batch, writer.tokens, WIDTH])
    return draft.model(writer.outputs)


def expected(form: FeedForwardForm) -> dict[str, int]:
    """Return the calls that a network of this form, which has no fault, must become."""
    activation = "Gelu" if form.activation in GELUS else "Relu" if form.activation in ("Relu", "squared") else ""
    wide = "MatMul" if form.first in BARE else f"ffc.Linear{activation}"
    narrow = "MatMul" if form.second in BARE else "ffc.Linear"
    found = {wide: 1}
    found[narrow] = found.get(narrow, 0) + 1
    return found | ({} if form.norm == "none" else {"ffc.AddNorm": 1})


@cases(48)
@given(st.lists(feed_forward_forms(), min_size=FORMS, max_size=FORMS), st.booleans())
def test_feed_forward_in_any_form_is_right_and_fused_where_it_is_one(forms: list[FeedForwardForm], dynamic: bool) -> None:
    before = model_of(forms, dynamic)
    after, _ = fused(before)
    assert_right(before, after)
    results = {value.name: value for value in after.graph.outputs}
    for index, form in enumerate(forms):
        found = upstream(results[f"y{index}"])
        if not form.fault:
            wanted = expected(form)
            assert {name: found[name] for name in wanted} == wanted, (form, found)
