"""Property: pruning layers in any form gives what the model gives with the dropped heads and units at zero, or refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ffc
from ffc.compiler.log import Log
from ffc.compiler.syntax import parse
from ffc.graph.blocks.finder import find
from ffc.graph.tidy import tidy
from ffc.pruning import LayerPlan, Plan, stamp
from tests.graphs import LIBRARY, Draft
from tests.properties.attention_forms import WIDTH, AttentionForm, AttentionWriter, attention_forms
from tests.properties.drafts import assert_right, cases, fused
from tests.properties.feed_forward_forms import FeedForwardForm, FeedForwardWriter, feed_forward_forms


@dataclass(frozen=True)
class LayerForm:
    """How one layer is written, and which heads and units of it are kept."""

    attention: AttentionForm
    ffn: FeedForwardForm
    heads: tuple[int, ...]
    units: tuple[int, ...]


@st.composite
def layer_forms(draw: st.DrawFn) -> LayerForm:
    """Return layers with a residual connection around each part and a norm at the end."""
    attention = replace(draw(attention_forms(faults=False)), residual=True)
    ffn = draw(feed_forward_forms(faults=False).filter(lambda form: form.norm != "none"))
    heads = draw(st.lists(st.sampled_from(range(attention.heads)), min_size=1, unique=True))
    units = draw(st.lists(st.sampled_from(range(ffn.units)), min_size=1, unique=True))
    return LayerForm(attention, ffn, tuple(sorted(heads)), tuple(sorted(units)))


def model_of(forms: list[LayerForm], dynamic: bool, *, masked: bool = False) -> ir.Model:
    """Return a model of these layers, one after another; what is not kept is zero where `masked`."""
    draft = Draft(len(forms))
    attentions = AttentionWriter(draft, *(("batch", "seq") if dynamic else (2, 4)))
    ffns = FeedForwardWriter(draft, attentions.batch, attentions.tokens, attentions.x, attentions.other)
    x = attentions.x
    for index, form in enumerate(forms):
        x = attentions.write(f"a{index}", form.attention, x, form.heads if masked else None)
        x = ffns.write(f"f{index}", form.ffn, x, form.units if masked else None)
    outputs = {**attentions.outputs, **ffns.outputs, "y": (x, [attentions.batch, attentions.tokens, WIDTH])}
    return draft.model(outputs)


def pruned(model: ir.Model, forms: list[LayerForm], folder: Path) -> ir.Model:
    """Return `model` pruned as `forms` say."""
    layers = tuple(LayerPlan(heads=form.heads, units=form.units) for form in forms)
    plan = folder / "plan.json"
    stamp(Plan(layers=layers), find(model)).save(plan)
    clone = model.clone()
    parse(f"prune{{plan={plan}}}", LIBRARY)[0].run(clone, Log())
    return tidy(clone)


@cases(20)
@given(st.lists(layer_forms(), min_size=3, max_size=3), st.booleans())
def test_pruned_layers_in_any_form_equal_the_masked_model(
    tmp_path_factory: pytest.TempPathFactory, forms: list[LayerForm], dynamic: bool
) -> None:
    model, _ = fused(model_of(forms, dynamic))
    try:
        after = pruned(model, forms, tmp_path_factory.getbasetemp())
    except ffc.CannotApplyError as error:
        assert any(form.attention.seen.startswith("query") for form in forms), error
        return
    assert_right(model_of(forms, dynamic, masked=True), after)
