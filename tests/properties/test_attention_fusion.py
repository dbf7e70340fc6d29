"""Property: attention in any form is fused and right; what is no attention is right, whatever became of it."""

from __future__ import annotations

import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import Draft
from tests.properties.attention_forms import WIDTH, AttentionForm, AttentionWriter, attention_forms
from tests.properties.drafts import assert_right, cases, fused, upstream

FORMS = 16
"""How many forms share a model, and the price of running it."""


def model_of(forms: list[AttentionForm], dynamic: bool) -> ir.Model:
    """Return a model with one attention of each form, side by side, with outputs ``y0``, ``y1``, …."""
    draft = Draft(len(forms))
    writer = AttentionWriter(draft, *(("batch", "seq") if dynamic else (2, 4)))
    for index, form in enumerate(forms):
        writer.outputs[f"y{index}"] = (writer.write(f"a{index}", form), [writer.batch, writer.tokens, WIDTH])
    return draft.model(writer.outputs)


@cases(80)
@given(st.lists(attention_forms(), min_size=FORMS, max_size=FORMS), st.booleans())
def test_attention_in_any_form_is_right_and_fused_where_it_is_attention(forms: list[AttentionForm], dynamic: bool) -> None:
    before = model_of(forms, dynamic)
    after, log = fused(before)
    assert_right(before, after)
    results = {value.name: value for value in after.graph.outputs}
    for index, form in enumerate(forms):
        found = upstream(results[f"y{index}"])
        calls = sum(found[f"ffc.{name}"] for name in ("Attention", "AttentionMasked", "AttentionOrZero"))
        assert calls in (0, 1)
        assert found["Softmax"] == 0 if calls else found["Softmax"] > 0
        if form.fusible:
            assert calls, (form, [f"{miss.where}: {miss.why}" for miss in log.misses if not miss.depth])
