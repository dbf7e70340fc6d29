"""Small encoders whose inputs say in many ways which tokens are real, for the tests of what inputs mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.probing.mask_inputs import INTERVALS, Form
from tests.graphs import Draft

FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL
WIDTH = 8


def attended(draft: Draft, name: str, x: Any, shown: Any, hidden: float = -np.inf) -> Any:
    """Let tokens x, [B, S, 8], attend to those that `shown`, bool and broadcast to [B, S, S], shows."""
    op = draft.op
    q, k, v = (op.MatMul(x, draft.normal(f"{name}.{role}", WIDTH, WIDTH)) for role in "qkv")
    scores = op.Where(shown, op.MatMul(q, op.Transpose(k, perm=[0, 2, 1])), np.float32(hidden))
    return op.Add(op.MatMul(op.Softmax(scores, axis=-1), v), x)


def embedded(draft: Draft, name: str, ids: Any) -> Any:
    """Look ids up."""
    return draft.op.Gather(draft.normal(f"{name}.table", 30, WIDTH), ids)


def within(draft: Draft, ids: Any, form: str, given: Any) -> Any:
    """Return which tokens of ids, [B, S], are real, bool [B, 1, S], as `given` says it."""
    op = draft.op
    if form == "kept":
        return op.Unsqueeze(op.Cast(given, to=int(BOOL)), [1])
    if form == "hidden":
        return op.Not(op.Unsqueeze(op.Cast(given, to=int(BOOL)), [1]))
    if form == "added":
        return op.Unsqueeze(op.Greater(given, np.float32(-100)), [1])
    places = op.Range(np.int64(0), op.Squeeze(op.Shape(ids, start=1, end=2), [0]), np.int64(1))
    told = op.Unsqueeze(given, [1, 2])
    if form in ("tail", "padding"):
        told = op.Sub(op.Shape(ids, start=1, end=2), told)
    if form in ("length", "padding"):
        return op.Less(places, told)
    return op.GreaterOrEqual(places, told) if form in ("start", "tail") else op.LessOrEqual(places, told)


def one_tower(form: str, dtype: ir.DataType, *, causal: bool = False, hidden: float = -np.inf) -> ir.Model:
    """Return a model of ids, [B, S], and one input called ``what`` that says which of them are real.

    Where a query may see nothing, `hidden` tells if it gives no number or the mean of all.
    """
    draft = Draft()
    ids = draft.input("ids", "batch", "seq", dtype=INT64)
    shape = ("batch",) if Form[form.upper()] in INTERVALS else ("batch", "seq")
    shown = within(draft, ids, form, draft.input("what", *shape, dtype=dtype))
    if causal:
        op = draft.op
        places = op.Range(np.int64(0), op.Squeeze(op.Shape(ids, start=1, end=2), [0]), np.int64(1))
        shown = op.And(shown, op.LessOrEqual(places, op.Unsqueeze(places, [1])))
    x = attended(draft, "one", embedded(draft, "one", ids), shown, hidden)
    return draft.model({"y": (x, ["batch", "seq", WIDTH])})


def two_towers(*names: str, forms: tuple[str, str] = ("length", "hidden")) -> ir.Model:
    """Return a model of two encoders side by side, tokens named by `names`, their means, and their product."""
    draft = Draft()
    op, outputs = draft.op, {}
    towers: list[tuple[str, str, str]] = list(zip("ab", names, forms, strict=True))
    held = []
    for tower, seq, form in towers:
        ids = draft.input(f"ids_{tower}", "batch", seq, dtype=INT64)
        shape = ("batch",) if form == "length" else ("batch", seq)
        shown = within(draft, ids, form, draft.input(f"what_{tower}", *shape, dtype=BOOL if form == "hidden" else INT64))
        x = attended(draft, tower, embedded(draft, tower, ids), shown)
        outputs[f"tokens_{tower}"] = (x, ["batch", seq, WIDTH])
        held.append(op.Gather(x, np.int64(0), axis=1))
    outputs["score"] = (op.ReduceSum(op.Mul(*held), [1], keepdims=1), ["batch", 1])
    return draft.model(outputs)


def two_heads(rows: str) -> ir.Model:
    """Return a model of x, [B, S, 8], with a mask for each of its two heads, [`rows`, S, S], and one of padding."""
    draft = Draft()
    op = draft.op
    x = draft.input("x", "batch", "seq", WIDTH)
    masks, padding = draft.input("masks", rows, "seq", "seq", dtype=BOOL), draft.input("padding", "batch", "seq", dtype=BOOL)
    batch, seq = op.Shape(x, start=0, end=1), op.Shape(x, start=1, end=2)
    by_head = op.Reshape(masks, op.Concat(batch, np.array([2]), seq, seq, axis=0))
    hidden = [op.Or(op.Gather(by_head, np.int64(head), axis=1), op.Unsqueeze(padding, [1])) for head in range(2)]
    heads = [attended(draft, name, x, op.Not(each)) for name, each in zip(("one", "other"), hidden, strict=True)]
    return draft.model({"y": (op.Add(*heads), ["batch", "seq", WIDTH])})
