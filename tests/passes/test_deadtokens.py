"""The pass `deadtokens` computes in the last layer only what a head reads, and leaves alone what all is read of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.compiler.log import Log
from ffc.compiler.syntax import parse
from ffc.graph.blocks.finder import find
from ffc.graph.cost import cost
from ffc.graph.text import text
from tests import encoders
from tests.classifiers import Head, classifier, first
from tests.graphs import (
    HEADS,
    LIBRARY,
    UNITS,
    WIDTH,
    Draft,
    Stock,
    difference,
    encoder,
    feeds,
    masks,
    run_pass,
    run_passes,
)

PRUNE = "prune{by=norm heads=1 ffn=0.5}"
TO_THE_END = 2**63 - 1

SHORTENED: dict[str, tuple[Head, int]] = {
    "one token by a number": (first, 1),
    "one token by a list": (lambda op, x: op.Squeeze(op.Gather(x, [0], axis=1), [1]), 1),
    "a slice of one": (lambda op, x: op.Squeeze(op.Slice(x, [0], [1], [1]), [1]), 1),
    "a slice of one, all axes named": (lambda op, x: op.Squeeze(op.Slice(x, [0, 0], [TO_THE_END, 1], [0, 1]), [1]), 1),
    "all rows sliced first": (lambda op, x: op.Gather(op.Slice(x, [0], [TO_THE_END], [0]), np.int64(0), axis=1), 1),
    "the last token": (lambda op, x: op.Gather(x, np.int64(-1), axis=1), 1),
    "a slice of the last": (lambda op, x: op.Squeeze(op.Slice(x, [-1], [TO_THE_END], [1]), [1]), 1),
    "the first twice": (lambda op, x: op.Add(first(op, x), op.Squeeze(op.Slice(x, [0], [1], [1]), [1])), 1),
    "first and last": (lambda op, x: op.Sub(first(op, x), op.Gather(x, np.int64(-1), axis=1)), 2),
    "a list of two": (lambda op, x: op.ReduceMax(op.Gather(x, [-1, 0], axis=1), [1], keepdims=0), 2),
    "elementwise before": (lambda op, x: first(op, op.Mul(op.Tanh(x), np.full(WIDTH, 0.5, np.float32))), 1),
    "a product before": (lambda op, x: first(op, op.Relu(op.MatMul(x, weight(WIDTH, WIDTH)))), 1),
    "a softmax before": (lambda op, x: first(op, op.Softmax(x, axis=-1)), 1),
    "a gate of each token": (lambda op, x: first(op, op.Mul(x, op.Sigmoid(op.MatMul(x, weight(WIDTH, 1))))), 1),
    "few of the columns": (lambda op, x: op.Pad(first(op, op.Slice(x, [0], [5], [2])), [0, 0, 0, WIDTH - 5]), 1),
    "heads apart and together": (
        lambda op, x: first(op, op.Reshape(op.Transpose(op.Reshape(x, [0, 0, 3, -1]), perm=[0, 1, 3, 2]), [0, 0, -1])), 1,
    ),
    "parts of each token": (lambda op, x: first(op, gated(op, x)), 1),
    "more of one path than of the other": (
        lambda op, x: op.Add(op.ReduceMin(op.Gather(x, [0, -1], axis=1), [1], keepdims=0), first(op, op.Neg(x))), 2,
    ),
}  # fmt: skip
"""Heads that read few tokens, and how many."""

LEFT_ALONE: dict[str, tuple[Head, str]] = {
    "mean": (lambda op, x: op.ReduceMean(x, [1], keepdims=0), "ReduceMean"),
    "largest": (lambda op, x: op.ReduceMax(x, [1], keepdims=0), "ReduceMax"),
    "tokens moved": (lambda op, x: first(op, op.Reshape(op.Transpose(x, perm=[0, 2, 1]), op.Shape(x))), "Transpose"),
    "first and mean": (lambda op, x: op.Add(first(op, x), op.ReduceMean(x, [1], keepdims=0)), "ReduceMean"),
    "softmax over tokens": (lambda op, x: first(op, op.Softmax(x, axis=1)), "Softmax"),
    "norm over tokens too": (lambda op, x: first(op, op.ReduceMean(x, [1, 2], keepdims=1)), "ReduceMean"),
    "tokens of another": (lambda op, x: first(op, op.MatMul(op.MatMul(x, op.Transpose(x, perm=[0, 2, 1])), x)), "reads all"),
    "a computed index": (
        lambda op, x: op.Squeeze(op.Gather(x, op.ReduceMin(last_of_ids(op, x)), axis=1), [1]),
        "Gather 'node_Gather_",
    ),
    "an index per row": (
        lambda op, x: op.GatherND(x, op.Unsqueeze(last_of_ids(op, x), [1]), batch_dims=1),
        "GatherND 'node_GatherND_",
    ),
    "the first two, where there are two": (
        lambda op, x: op.ReduceMax(op.Slice(x, [0], [2], [1]), [1], keepdims=0),
        "takes a number of tokens that depends on the length",
    ),
    "all but the first": (
        lambda op, x: op.ReduceSum(op.Slice(x, [1], [TO_THE_END], [1]), [1], keepdims=0),
        "takes a number of tokens that depends on the length",
    ),
}  # fmt: skip
"""Heads that read all tokens, or that cannot be told to read few, and what is said of them."""


def last_of_ids(op: Any, x: Any) -> Any:
    """Return where each row has its largest id, which may be the end of a sentence, [batch]."""
    return op.ArgMax(x.producer().graph.inputs[0], axis=1, keepdims=0)


def gated(op: Any, x: Any) -> Any:
    """Multiply one half of each token by the other, and put the result beside the first."""
    left, right = op.Split(x, [WIDTH // 2] * 2, axis=2, outputs=2)
    return op.Concat(left, op.Mul(left, op.Sigmoid(right)), axis=-1)


def weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def apply(model: ir.Model) -> tuple[ir.Model, Log]:
    """Run the pass on a clone."""
    after = model.clone()
    (item,) = parse("deadtokens", LIBRARY)
    return after, run_pass(item, after)


def check_equal(before: ir.Model, after: ir.Model, tolerance: float = 1e-5) -> None:
    one, other = Stock(before), Stock(after)
    for batch, length in ((3, 1), (3, 2), (1, 9), (3, 9)):
        for mask in masks(batch, length).values():
            inputs = feeds(mask)
            assert difference(one(inputs), other(inputs)) < tolerance


def queries(model: ir.Model) -> list[int | str]:
    """Return how many tokens each attention gives."""
    shapes = ffc.Editor(model).shapes
    contexts = [node.outputs[0] for node in model.graph if node.op_type in ("Attention", "AttentionMasked")]
    return [str(shape[1]) for context in contexts if (shape := shapes.of(context)) is not None]


def test_golden(golden_graph: Callable[[str, ir.Model], None]) -> None:
    golden_graph("deadtokens", run_passes(classifier(), "opset", "clean", "fuse", "deadtokens"))


@pytest.mark.parametrize("name", SHORTENED)
def test_the_last_layer_runs_on_the_tokens_that_are_read(name: str) -> None:
    head, tokens = SHORTENED[name]
    before = run_passes(classifier(head), "opset", "clean", "fuse")
    after, log = apply(before)
    assert log.done["layers"] == 1 and not log.misses
    assert queries(after) == ["seq", str(tokens)]
    check_equal(before, after)


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_all_is_read_of_is_left_alone_with_the_reason(name: str) -> None:
    head, reason = LEFT_ALONE[name]
    before = run_passes(classifier(head), "opset", "clean", "fuse")
    after, log = apply(before)
    assert not log.count and text(after) == text(before)
    (miss,) = log.misses
    assert miss.where == "layer 1" and reason in miss.why


@pytest.mark.parametrize("pooler", [False, True])
def test_an_output_of_all_tokens_is_left_alone(pooler: bool) -> None:
    before = run_passes(encoder(pooler=pooler), "opset", "clean", "fuse")
    after, log = apply(before)
    assert not log.count and text(after) == text(before)
    assert [(miss.where, miss.why) for miss in log.misses] == [
        ("layer 0", "all tokens of it are read: 'last_hidden_state' is an output of the model")
    ]


@pytest.mark.parametrize("keep", [False, True])
def test_selected_rows_may_be_the_output_itself(keep: bool) -> None:
    head: Head = (lambda op, x: op.Slice(x, [0], [1], [1])) if keep else first
    before = run_passes(classifier(head, labels=False), "opset", "clean", "fuse")
    after, log = apply(before)
    assert log.done == {"layers": 1}
    assert [value.name for value in after.graph.outputs] == ["rows"]
    check_equal(before, after)


def test_the_same_rows_may_be_two_outputs() -> None:
    model = classifier(lambda op, x: op.Slice(x, [0], [1], [1]), labels=False)
    again = ir.node("Identity", [model.graph.outputs[0]])
    model.graph.append(again)
    again.outputs[0].name, again.outputs[0].type = "again", ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.append(again.outputs[0])
    before = run_passes(model, "opset", "clean", "fuse")
    after, log = apply(before)
    assert log.done == {"layers": 1}
    check_equal(before, after)


def test_work_is_saved_and_told() -> None:
    before = run_passes(classifier(layers=3), "opset", "clean", "fuse")
    after, log = apply(before)
    assert log.notes == ["layer 2: q, attn_out, ffn_in, ffn_out on the first token alone"]
    tokens = 10
    one = cost(before, 1, tokens)
    other = cost(after, 1, tokens)
    assert not one.macs_unknown and not other.macs_unknown
    saved = (tokens - 1) * (2 * WIDTH * WIDTH + 2 * WIDTH * UNITS + 2 * tokens * WIDTH)
    assert one.macs - other.macs == saved


def test_a_second_run_finds_nothing_more() -> None:
    after, _ = apply(run_passes(classifier(), "opset", "clean", "fuse"))
    again, log = apply(after)
    assert not log.count and text(again) == text(after)
    assert [(miss.where, miss.why) for miss in log.misses] == [("layer 1", "it has 1 queries to seq keys already")]


def test_the_shortened_layer_is_found_and_pruned() -> None:
    after = run_passes(classifier(), "opset", "clean", "fuse", "deadtokens")
    blocks = find(after)
    assert len(blocks.layers) == 2 and not blocks.unmatched
    assert all(layer.cuttable is not None and layer.ffn is not None for layer in blocks.layers)
    one = ffc.compile(classifier(), f"{PRUNE},deadtokens")
    other = ffc.compile(classifier(), f"deadtokens,{PRUNE}")
    pruned = next(step for step in other.report.steps if step.text.startswith("prune"))
    assert pruned.changes == {"heads": 2 * (HEADS - 1), "units": UNITS}
    check_equal(one.model, other.model)


@pytest.mark.parametrize(("target", "name"), [("cpu", "one token by a number"), ("portable", "first and last")])
def test_a_compiled_model_is_found_whole_again(target: str, name: str) -> None:
    source = classifier(SHORTENED[name][0])
    once = ffc.compile(source, "deadtokens", target=target)
    twice = ffc.compile(once.model, "fuse,deadtokens", target=target)
    fused, dead = (step for step in twice.report.steps if step.text in ("fuse", "deadtokens"))
    assert fused.changes["attention"] == 2 and not dead.changes
    check_equal(source, twice.model)
    late = ffc.compile(ffc.compile(source, "fuse", target=target).model, "deadtokens", target=target)
    assert any(step.changes == {"layers": 1} for step in late.report.steps)
    check_equal(source, late.model)


def test_int8_takes_every_product_of_the_shortened_layer() -> None:
    result = ffc.compile(classifier(), "deadtokens,int8")
    taken = next(step for step in result.report.steps if step.text == "int8").changes
    assert taken == {"q": 2, "k": 2, "v": 2, "attn_out": 2, "ffn_in": 2, "ffn_out": 2, "head": 2}


def test_it_refuses_after_int8() -> None:
    with pytest.raises(ffc.CannotApplyError, match="'deadtokens' comes after 'int8'"):
        ffc.compile(classifier(), "int8,deadtokens")
    model = run_passes(classifier(), "opset", "clean", "fuse", "int8")
    with pytest.raises(ffc.CannotApplyError, match="run `deadtokens` before `int8`"):
        apply(model)


def attention_model(mask_heads: int, mask_rows: int | str, tokens: int | str = "seq", bias_rank: int = 0) -> ir.Model:
    """Return one attention, its residual and a norm, of which the first token is read; in standard operators.

    Args:
        mask_heads: Planes of the mask, [batch, `mask_heads`, `mask_rows`, tokens]; none for 0.
        mask_rows: Its rows.
        tokens: The length, if fixed.
        bias_rank: Rank of a constant with a row per token that is added to the result; none for 0.
    """
    draft = Draft(5)
    op = draft.op
    x = draft.input("x", "batch", tokens, WIDTH)
    q, k, v = (
        op.Transpose(op.Reshape(draft.linear(role, x, WIDTH, WIDTH), [0, 0, HEADS, -1]), perm=[0, 2, 1, 3])
        for role in "qkv"
    )
    scores = op.Mul(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), np.float32(0.5))
    if mask_heads:
        mask = draft.input("mask", "batch", mask_heads, mask_rows, tokens)
        scores = op.Add(scores, mask)
    context = op.Transpose(op.MatMul(op.Softmax(scores, axis=-1), v), perm=[0, 2, 1, 3])
    merged = op.Reshape(context, [0, 0, WIDTH])
    y = draft.norm("norm", op.Add(draft.linear("out", merged, WIDTH, WIDTH), x))
    if bias_rank:
        y = op.Add(draft.normal("bias", *([1] * (bias_rank - 2)), int(tokens), WIDTH), y)
    return draft.model({"y": (op.Gather(y, np.int64(0), axis=1), ["batch", WIDTH])})


@pytest.mark.parametrize("tokens", ["seq", 6])
@pytest.mark.parametrize("heads", [0, 1, HEADS])
@pytest.mark.parametrize("rows", ["all", 1])
def test_masks_lose_the_rows_of_queries_that_are_gone(tokens: int | str, heads: int, rows: int | str) -> None:
    model = attention_model(heads, tokens if rows == "all" else 1, tokens)
    before = run_passes(model, "opset", "clean", "fuse")
    after, log = apply(before)
    assert log.done == {"layers": 1} and queries(after) == ["1"]
    random = np.random.default_rng(0)
    for batch, length in [(1, 6), (2, 6)] if tokens == 6 else [(1, 1), (2, 1), (1, 5), (3, 5)]:
        inputs = {"x": random.standard_normal((batch, length, WIDTH)).astype(np.float32)}
        if heads:
            shape = (batch, heads, length if rows == "all" else 1, length)
            inputs["mask"] = 2 * random.standard_normal(shape).astype(np.float32)
        expected = Stock(model)(inputs)
        assert difference(expected, Stock(after)(inputs)) < 1e-5
        for target in ("cpu", "portable"):
            lowered = run_passes(after, f"lower{{target={target}}}")
            assert difference(expected, Stock(lowered)(inputs)) < 1e-5


@pytest.mark.parametrize("rank", [2, 3])
def test_a_bias_of_each_position_loses_rows_too(rank: int) -> None:
    model = attention_model(0, 1, 6, bias_rank=rank)
    after, log = apply(run_passes(model, "opset", "clean", "fuse"))
    assert log.done == {"layers": 1} and queries(after) == ["1"]
    inputs = {"x": weight(2, 6, WIDTH)}
    assert difference(Stock(model)(inputs), Stock(after)(inputs)) < 1e-5


def test_rows_of_one_token_have_nothing_to_lose() -> None:
    _, log = apply(run_passes(attention_model(0, 1, 1), "opset", "clean", "fuse"))
    assert not log.count and "it has one token only" in log.misses[0].why


def test_products_of_attention_that_fuse_did_not_take_are_shortened_all_the_same() -> None:
    before = run_passes(classifier(), "opset", "clean")
    after, log = apply(before)
    assert log.done == {"layers": 1}
    assert log.notes == ["layer 1: attn_out, ffn_in, ffn_out on the first token alone"]
    assert [miss.where for miss in log.misses] == ["layer 1"]
    check_equal(before, after)


EXPORTED: list[encoders.Kind] = ["bert", "roberta"]


@pytest.mark.parametrize("kind", EXPORTED)
def test_real_exports_are_shortened_and_proved(kind: encoders.Kind, exported: Callable[..., Path]) -> None:
    path = exported(kind, head=True)
    result = ffc.compile(path, "deadtokens")
    step = next(step for step in result.report.steps if step.text == "deadtokens")
    assert step.changes == {"layers": 1}
    assert step.verdict is not None and step.verdict.difference < 1e-5
    before, after = Stock(path), Stock(result.model)
    for length in (1, 5, 33):
        for mask in masks(3, length).values():
            inputs = feeds(mask, vocabulary=encoders.VOCABULARY, types=kind == "bert")
            assert difference(before(inputs), after(inputs), mask) < 1e-4


def test_tokens_are_no_more_than_an_axis() -> None:
    """Whatever axis 1 is, what is read of it is enough: here it is heads, and a product follows each."""
    draft = Draft(1)
    op: Any = draft.op
    x = draft.input("x", "batch", 3, "seq", WIDTH)
    y = op.Gather(op.Tanh(draft.linear("dense", x, WIDTH, WIDTH)), np.int64(-2), axis=1)
    before = run_passes(draft.model({"y": (y, ["batch", "seq", WIDTH])}), "opset", "clean", "fuse")
    after, log = apply(before)
    assert log.done == {"other products": 1}
    inputs = {"x": weight(2, 3, 4, WIDTH)}
    assert difference(Stock(before)(inputs), Stock(after)(inputs)) < 1e-6
