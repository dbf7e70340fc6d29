"""What looks like a block and is none: it stays right, it is not fused, and the reason is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ffc.compiler.log import Log
from ffc.graph.blocks.finder import find
from tests.graphs import Draft
from tests.properties.attention_forms import WIDTH, AttentionForm, AttentionWriter
from tests.properties.drafts import assert_right, fused, upstream
from tests.properties.feed_forward_forms import FeedForwardForm, FeedForwardWriter

# Attention that must stay a Softmax

NOT_ATTENTION = [
    ("axis 1", "it is taken over axis 1, not the last"),
    ("axis 2", "it is taken over axis 2, not the last"),
    ("scale per head", "no product of activations"),
    ("scale per query", "no product of activations"),
    ("scale is an input", "no product of activations"),
    ("scale after softmax", "stands between its probabilities and the values"),
    ("dropout", "stands between its probabilities and the values"),
    ("mask after softmax", "stands between its probabilities and the values"),
    ("multiplied mask", "stands between its scores and the product"),
    ("tanh of scores", "stands between its scores and the product"),
    ("softmax twice", "stands between its scores and the product"),
    ("values scaled", "its values are scaled"),
    ("probabilities out", "its probabilities are read by several nodes or are an output of the model"),
    ("probabilities read twice", "its probabilities are read by several nodes or are an output of the model"),
]


def attention_model(form: AttentionForm, *, dynamic: bool = True) -> ir.Model:
    draft = Draft()
    writer = AttentionWriter(draft, *(("batch", "seq") if dynamic else (2, 4)))
    outputs = {"y": (writer.write("a", form), [writer.batch, writer.tokens, WIDTH])}
    return draft.model({**writer.outputs, **outputs})


def reasons(log: Log) -> list[str]:
    return [miss.why for miss in log.misses]


def called(model: ir.Model) -> set[str]:
    result = next(value for value in model.graph.outputs if value.name == "y")
    return {name.removeprefix("ffc.") for name in upstream(result) if name.startswith("ffc.")}


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(("fault", "why"), NOT_ATTENTION)
def test_what_is_no_attention_is_not_fused(fault: str, why: str, dynamic: bool) -> None:
    model = attention_model(AttentionForm(fault=fault, masks=("int",)), dynamic=dynamic)
    after, log = fused(model)
    assert_right(model, after)
    assert not called(after) & {"Attention", "AttentionMasked", "AttentionOrZero"}
    assert any(why in reason for reason in reasons(log)), reasons(log)


# Attention whose heads do not lie in columns of products: it may be a call, but its heads cannot be cut

NOT_TO_PRUNE = [
    ("scale per key column", "stands before a product with a constant weight"),
    ("mask on queries", "stands before a product with a constant weight"),
    ("mask on keys", "stands before a product with a constant weight"),
    ("masked values", "stands before a product with a constant weight"),
    ("query over tokens", "stands before a product with a constant weight"),
    ("mixed tokens", "an operand mixes tokens"),
    ("swapped head and token", "an operand mixes tokens"),
    ("not transposed", "an operand mixes tokens"),
    ("unmerged", "its context does not lead to an output projection"),
    ("merged size first", "its context does not lead to an output projection"),
    ("merged backwards", "what Slice"),
    ("added to context", "its context does not lead to an output projection"),
    ("context out", "its context does not lead to an output projection"),
    ("context read twice", "its context is read by something other than one output projection"),
]


@pytest.mark.parametrize(("fault", "why"), NOT_TO_PRUNE)
def test_attention_that_is_not_made_of_products_has_no_heads_to_cut(fault: str, why: str) -> None:
    model = attention_model(AttentionForm(fault=fault, masks=("int",)))
    after, _ = fused(model)
    assert_right(model, after)
    for graph in (model, after):
        assert all(layer.cuttable is None for layer in find(graph).layers)
    assert any(layer.attention and why in layer.attention.why for layer in find(model).layers)


# Feed-forward networks, activations, norms and products


@dataclass(frozen=True)
class Row:
    """One form with one fault.

    Attributes:
        form: How it is written.
        absent: Calls that must not stand for it.
        why: What the report says of the nearest rule.
    """

    form: FeedForwardForm
    absent: tuple[str, ...]
    why: str


def fault(name: str, *absent: str, why: str, norm: str = "pow") -> Row:
    return Row(FeedForwardForm(fault=name, norm=norm), absent, why)


def activation(name: str, why: str) -> Row:
    return Row(FeedForwardForm(activation=name), ("LinearGelu", "LinearRelu"), why)


NOT_FUSED = [
    fault("linear out", "LinearGelu", why="f.linear is also an output of the model"),
    fault("linear read twice", "LinearGelu", why="is also read elsewhere"),
    fault("sum out", "AddNorm", why="f.sum is also an output of the model"),
    fault("sum read twice", "AddNorm", why="is also read elsewhere"),
    fault("bias over tokens", "LinearGelu", why="is not constant"),
    fault("bias of one", "LinearGelu", why="what is added is not a bias of 20 numbers"),
    fault("residual of one token", "AddNorm", why="the two summands differ in shape"),
    fault("norm over tokens", "Norm", "AddNorm", why="it is taken over axes [1]"),
    fault("epsilon outside", "Norm", "AddNorm", why="is not Sqrt"),
    fault("epsilon large", "Norm", "AddNorm", why="epsilon is not one small number"),
    fault("gamma per token", why="factor"),
    fault("variance of another", "Norm", "AddNorm", why="is not computed by ReduceMean"),
    fault("mean of another", "Norm", "AddNorm", why="x would be both"),
    fault("no residual", "AddNorm", why=""),
    activation("wrong sqrt", "is not 1.41421"),
    activation("wrong half", "is not 0.5"),
    activation("wrong one", "is not 1.0"),
    activation("wrong cubic", "is not 0.0447"),
    activation("wrong power", "is not 3.0"),
    activation("half of another", "x would be both"),
    activation("erf of another", "x would be both"),
    activation("quick gelu", ""),
    activation("LeakyRelu", ""),
    activation("per unit", ""),
    activation("over units", ""),
]


def feed_forward_model(form: FeedForwardForm) -> ir.Model:
    draft = Draft()
    writer = FeedForwardWriter(draft, "batch", "seq")
    outputs = {"y": (writer.write("f", form), [writer.batch, writer.tokens, WIDTH])}
    return draft.model({**writer.outputs, **outputs})


@pytest.mark.parametrize("row", NOT_FUSED, ids=lambda row: row.form.fault or row.form.activation)
def test_what_is_no_block_is_not_fused(row: Row) -> None:
    model = feed_forward_model(row.form)
    after, log = fused(model)
    assert_right(model, after)
    assert not called(after) & set(row.absent)
    assert any(row.why in reason for reason in reasons(log)), reasons(log)


def test_the_same_forms_without_a_fault_are_fused() -> None:
    """The rows above would prove nothing if nothing were ever fused."""
    after, _ = fused(attention_model(AttentionForm(masks=("int",))))
    assert called(after) == {"AttentionMasked", "Linear"}
    for norm in ("pow", "operator"):
        after, _ = fused(feed_forward_model(FeedForwardForm(norm=norm)))
        assert called(after) == {"LinearGelu", "Linear", "AddNorm"}


# Units that cannot be cut

NOT_CUT = ("hidden out", "hidden read twice", "linear out", "linear read twice", "bias over tokens")


@pytest.mark.parametrize("name", NOT_CUT)
def test_units_that_something_else_looks_into_cannot_be_cut(name: str) -> None:
    def layer(form: FeedForwardForm) -> ir.Model:
        draft = Draft()
        attention = AttentionWriter(draft, "batch", "seq")
        ffn = FeedForwardWriter(draft, "batch", "seq", attention.x, attention.other)
        y = ffn.write("f", form, attention.write("a", AttentionForm()))
        return draft.model({**ffn.outputs, "y": (y, ["batch", "seq", WIDTH])})

    for graph in (layer(FeedForwardForm(fault=name)), fused(layer(FeedForwardForm(fault=name)))[0]):
        assert [each.ffn for each in find(graph).layers] == [None]
    assert find(layer(FeedForwardForm())).layers[0].ffn is not None


def test_scores_that_two_attentions_read_are_not_computed_twice() -> None:
    draft = Draft()
    op, x = draft.op, draft.input("x", "batch", "seq", WIDTH)

    def heads(role: str) -> Any:
        return op.Transpose(op.Reshape(draft.linear(role, x, WIDTH, WIDTH), [0, 0, 3, 4]), perm=[0, 2, 1, 3])

    scores = op.MatMul(heads("q"), op.Transpose(heads("k"), perm=[0, 1, 3, 2]))
    contexts = [op.MatMul(op.Softmax(op.Mul(scores, np.float32(scale)), axis=-1), heads(f"v{scale}")) for scale in (0.5, 0.7)]
    merged = [op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), [0, 0, WIDTH]) for context in contexts]
    model = draft.model({"y": (op.Add(*(draft.linear(f"out{i}", y, WIDTH, WIDTH) for i, y in enumerate(merged))), ["batch", "seq", WIDTH])})
    after, log = fused(model)
    assert_right(model, after)
    assert "Attention" not in called(after)
    assert any("its scores are read elsewhere too" in reason for reason in reasons(log))
