"""A grammar of attention: the ways in which exporters and people write it, and the ways in which it is something else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st

from tests.graphs import LOWEST, Draft
from tests.properties.product_forms import PRODUCTS, write_product

WIDTH = 12

SPLITS = ("separate", "separate", "separate", "split", "slice", "gather", "interleaved")
TARGETS = ("0,0,H,D", "0,0,-1,D", "0,0,H,-1", "computed")
KEYS = ("once", "twice", "flat")
SCALES = ("after", "divide", "query", "query divided", "key", "both", "product", "none")
MASKS = ("int", "lowest", "where", "infinite", "expanded", "float", "heads", "select", "select not", "subtract")

FAULTS = (
    "axis 1", "axis 2", "scale per head", "scale per query", "scale per key column", "scale after softmax", "scaled masks",
    "mask on queries", "mask on keys", "mask after softmax", "masked values", "multiplied mask", "tanh of scores", "values scaled",
    "dropout", "query over tokens", "mixed tokens", "unmerged", "merged size first", "merged backwards", "swapped head and token",
    "cross keys", "cross values", "not transposed", "scores out", "probabilities out", "probabilities read twice", "scores read twice",
    "context out", "context read twice", "keys reversed", "scale is an input", "softmax twice", "added to context",
)  # fmt: skip
"""What makes a graph no attention, or one that something else looks into: it may be left alone, it must stay right."""


@dataclass(frozen=True)
class AttentionForm:
    """How one attention is written.

    Attributes:
        heads: Number of heads.
        size: Head size of queries and keys.
        value_size: Head size of values.
        split: How q, k and v come about.
        q: How the product of the queries (of all three, where they are one) is written.
        k: That of the keys.
        v: That of the values.
        out: The output projection.
        target: The shape that heads are split with.
        keys: How keys come to be transposed.
        scale: Where the scale stands.
        factor: The scale.
        rank: Rank of the constant that holds it.
        masks: What is added to the scores or selects them, in order.
        swapped: Whether operands of commutative operators stand the other way round.
        guard: Whether probabilities that are not numbers become 0.
        axis: Axis of the Softmax.
        merge: The shape that heads are merged with.
        residual: Whether the input is added at the end.
        seen: A value that something else reads too, or that is an output of the model, which does no harm.
        fault: What is wrong with it.
    """

    heads: int = 3
    size: int = 4
    value_size: int = 4
    split: str = "separate"
    q: str = "matmul+bias"
    k: str = "matmul+bias"
    v: str = "matmul+bias"
    out: str = "matmul+bias"
    target: str = "0,0,H,D"
    keys: str = "once"
    scale: str = "after"
    factor: float = 0.5
    rank: int = 0
    masks: tuple[str, ...] = ()
    swapped: bool = False
    guard: bool = False
    axis: int = -1
    merge: str = "0,0,W"
    residual: bool = True
    seen: str = ""
    fault: str = ""

    @property
    def fusible(self) -> bool:
        """Whether it is attention that nothing looks into, and one mask that is added can say what its masks do.

        None can where a number stands in place of scores beside which they would not vanish, another of any size is
        added, and a query may see nothing.
        """
        return not self.fault and self.masks not in (("select not", "float"), ("select not", "heads"))


def attention_forms(*, faults: bool = True) -> st.SearchStrategy[AttentionForm]:
    """Return forms of attention, about half of them with a fault where `faults` are wanted."""
    product = st.sampled_from((*PRODUCTS[:3], *PRODUCTS))
    return st.builds(
        AttentionForm,
        heads=st.sampled_from((1, 2, 3)),
        size=st.sampled_from((2, 4)),
        value_size=st.sampled_from((2, 4)),
        split=st.sampled_from(SPLITS),
        q=product,
        k=product,
        v=product,
        out=product,
        target=st.sampled_from(TARGETS),
        keys=st.sampled_from(KEYS),
        scale=st.sampled_from(SCALES),
        factor=st.sampled_from((0.5, 0.3, 8**-0.5)),
        rank=st.sampled_from((0, 0, 1, 4)),
        masks=st.one_of(
            st.just(()),
            st.tuples(st.sampled_from(MASKS)),
            st.tuples(st.sampled_from(MASKS), st.sampled_from(("float", "heads", "int"))),
        ),
        swapped=st.booleans(),
        guard=st.booleans(),
        axis=st.sampled_from((-1, -1, 3)),
        merge=st.sampled_from(("0,0,W", "0,0,-1", "computed", "0,-1,W")),
        residual=st.booleans(),
        seen=st.sampled_from(("", "", "", "query read twice", "query out", "mask out", "result out")),
        fault=st.one_of(st.just(""), st.sampled_from(FAULTS)) if faults else st.just(""),
    ).map(_possible)


def _possible(form: AttentionForm) -> AttentionForm:
    """Return `form` with values no wider than queries where one product makes both, reshaped as one."""
    together = form.split in ("gather", "interleaved")
    return replace(form, value_size=min(form.value_size, form.size)) if together else form


class AttentionWriter:
    """Writes attentions into one draft; all of them share its inputs.

    The draft gets ``x`` and ``other`` [batch, seq, 12], ``keep`` int64 [batch, seq], ``added`` [batch, 1, seq, seq] and ``factor`` [1].
    """

    def __init__(self, draft: Draft, batch: int | str, tokens: int | str) -> None:
        self.draft, self.op = draft, draft.op
        self.batch, self.tokens = batch, tokens
        self.x = draft.input("x", batch, tokens, WIDTH)
        self.other = draft.input("other", batch, tokens, WIDTH)
        self.keep = draft.input("keep", batch, tokens, dtype=ir.DataType.INT64)
        self.added = draft.input("added", batch, 1, tokens, tokens)
        self.factor = draft.input("factor", 1)
        self.outputs: dict[str, tuple[Any, list[int | str]]] = {}

    def write(self, name: str, form: AttentionForm, x: Any = None, keep_heads: tuple[int, ...] | None = None) -> Any:
        """Add one attention and return its result; what it shows of its inside goes to `outputs`.

        Args:
            name: Prefix of weights and outputs.
            form: How it is written.
            x: What it reads, [batch, seq, 12]; the input ``x`` by default.
            keep_heads: The heads that count; the others' rows of the output projection are zero.
        """
        op, fault = self.op, form.fault
        x = self.x if x is None else x
        q, k, v = self._heads(name, form, x)
        scores = self._scores(name, form, q, k)
        p = self._probabilities(form, scores)
        if fault == "values scaled":
            v = op.Mul(v, np.float32(2))
        elif fault == "masked values":
            v = op.Mul(v, op.Transpose(self._kept(), perm=[0, 1, 3, 2]))
        context = op.MatMul(p, v)
        if fault == "added to context":
            context = op.Add(context, np.float32(1))
        merged = self._merged(form, context)
        out = write_product(self.draft, f"{name}.out", form.out, merged, form.heads * form.value_size, WIDTH, rows=_rows(form, keep_heads))
        self._show(name, form, scores, p, context)
        result = out
        if form.residual or fault == "context read twice":
            result = op.Add(x, out) if form.swapped else op.Add(out, x)
        if fault == "context read twice":
            result = op.Add(result, op.ReduceMean(merged, [-1]))
        if form.seen == "result out":
            self.outputs[f"{name}.result"] = (out, [self.batch, self.tokens, WIDTH])
            result = op.Mul(result, np.float32(2))  # a value has one name
        return result

    def _probabilities(self, form: AttentionForm, scores: Any) -> Any:
        op, fault = self.op, form.fault
        if fault == "softmax twice":
            scores = op.Softmax(scores, axis=-1)
        p = op.Softmax(scores, axis={"axis 1": 1, "axis 2": 2}.get(fault, form.axis))
        if form.guard:
            p = op.Where(op.IsNaN(p), np.float32(0), p)
        factors = {"scale after softmax": np.float32(0.5), "dropout": np.float32(1.25)}
        if fault == "mask after softmax":
            return op.Mul(p, self._kept())
        return op.Mul(p, factors[fault]) if fault in factors else p

    def _show(self, name: str, form: AttentionForm, scores: Any, p: Any, context: Any) -> None:
        op, square = self.op, [self.batch, form.heads, self.tokens, self.tokens]
        sized = [self.batch, form.heads, self.tokens, form.value_size]
        if form.fault == "scores out":
            self.outputs[f"{name}.scores"] = (scores, square)
        elif form.fault == "probabilities out":
            self.outputs[f"{name}.p"] = (p, square)
        elif form.fault == "context out":
            self.outputs[f"{name}.context"] = (context, sized)
        elif form.fault == "scores read twice":
            self.outputs[f"{name}.scores"] = (op.Neg(scores), square)
        elif form.fault == "probabilities read twice":
            self.outputs[f"{name}.p"] = (op.Neg(p), square)

    def _heads(self, name: str, form: AttentionForm, x: Any) -> tuple[Any, Any, Any]:
        """Return q, k and v as [B, H, S, D], keys not transposed yet."""
        op, fault = self.op, form.fault
        sizes = (form.size, form.size, form.value_size)
        sources = (x, self.other if fault == "cross keys" else x, self.other if fault == "cross values" else x)
        if form.split == "separate" or fault.startswith("cross"):
            made = [
                write_product(self.draft, f"{name}.{role}", way, source, WIDTH, form.heads * size)
                for role, way, source, size in zip("qkv", (form.q, form.k, form.v), sources, sizes, strict=True)
            ]
        elif form.split in ("split", "slice"):
            made = self._cut(name, form, x, [form.heads * size for size in sizes])
        else:
            return self._gathered(name, form, x)
        if form.scale == "product":
            made[0] = self._times(form, made[0], form.factor)
        if form.seen == "query out":
            self.outputs[f"{name}.q"] = (made[0], [self.batch, self.tokens, form.heads * form.size])
        elif form.seen == "query read twice":
            self.outputs[f"{name}.q"] = (op.Neg(made[0]), [self.batch, self.tokens, form.heads * form.size])
        if fault == "query over tokens":
            made[0] = op.Add(made[0], op.ReduceMean(made[0], [1]))
        q, k, v = (self._apart(form, value, size) for value, size in zip(made, sizes, strict=True))
        if fault == "mixed tokens":
            v = op.Reshape(made[2], [0, form.heads, -1, form.value_size])
        return q, k, v

    def _cut(self, name: str, form: AttentionForm, x: Any, widths: list[int]) -> list[Any]:
        op = self.op
        fused = write_product(self.draft, f"{name}.qkv", form.q, x, WIDTH, sum(widths))
        if form.split == "split":
            return list(op.Split(fused, widths, axis=-1, outputs=3))
        ends = np.cumsum(widths).tolist()
        return [op.Slice(fused, [end - width], [end], [2]) for end, width in zip(ends, widths, strict=True)]

    def _gathered(self, name: str, form: AttentionForm, x: Any) -> tuple[Any, Any, Any]:
        op, heads, size = self.op, form.heads, form.size
        fused = write_product(self.draft, f"{name}.qkv", form.q, x, WIDTH, 3 * heads * size)
        if form.split == "gather":
            parts = op.Transpose(op.Reshape(fused, [0, 0, 3, heads, size]), perm=[2, 0, 3, 1, 4])
            q, k, v = (op.Gather(parts, np.int64(index), axis=0) for index in range(3))
        else:
            parts = op.Transpose(op.Reshape(fused, [0, 0, heads, 3, size]), perm=[0, 2, 1, 3, 4])
            q, k, v = (op.Squeeze(part, [3]) for part in op.Split(parts, [1, 1, 1], axis=3, outputs=3))
        if form.value_size < size:
            v = op.Slice(v, [0], [form.value_size], [3])
        return q, k, v

    def _apart(self, form: AttentionForm, value: Any, size: int) -> Any:
        op, heads = self.op, form.heads
        if form.fault == "swapped head and token":
            return op.Reshape(value, [0, heads, -1, size])
        shapes: dict[str, Any] = {"0,0,H,D": [0, 0, heads, size], "0,0,-1,D": [0, 0, -1, size], "0,0,H,-1": [0, 0, heads, -1]}
        shape = shapes.get(form.target)
        if shape is None:
            shape = op.Concat(op.Shape(value, start=0, end=1), op.Shape(value, start=1, end=2), [heads], [size], axis=0)
        return op.Transpose(op.Reshape(value, shape), perm=[0, 2, 1, 3])

    # Scores

    def _times(self, form: AttentionForm, value: Any, factor: float) -> Any:
        number = np.full([1] * (min(form.rank, 1) if form.scale == "product" else form.rank), factor, np.float32)
        return self.op.Mul(number, value) if form.swapped else self.op.Mul(value, number)

    def _over(self, form: AttentionForm, value: Any, divisor: float) -> Any:
        return self.op.Div(value, np.full([1] * form.rank, divisor, np.float32))

    def _scores(self, name: str, form: AttentionForm, q: Any, k: Any) -> Any:
        op, fault = self.op, form.fault
        scores = op.MatMul(*self._scaled_before(form, q, k))
        if form.scale == "after":
            scores = self._times(form, scores, form.factor)
        elif form.scale == "divide":
            scores = self._over(form, scores, 1 / form.factor)
        scores = self._odd_scale(form, scores)
        for index, kind in enumerate(form.masks):
            scores = self._masked(f"{name}.mask{index}", kind, form, scores)
        if fault == "scaled masks":
            return op.Mul(scores, 0.5)
        if fault == "multiplied mask":
            return op.Mul(scores, self._kept())
        return op.Tanh(scores) if fault == "tanh of scores" else scores

    def _scaled_before(self, form: AttentionForm, q: Any, k: Any) -> tuple[Any, Any]:
        """Return queries, and keys transposed, with what is done to either before their product."""
        op, fault = self.op, form.fault
        if fault == "mask on queries":
            q = op.Add(q, op.Transpose(self._added_mask("int", form), perm=[0, 1, 3, 2]))
        elif fault == "scale per key column":
            q = op.Mul(q, np.linspace(0.2, 1, form.size, dtype=np.float32))
        if form.scale in ("query", "query divided", "both"):
            over = self._over if form.scale == "query divided" else self._times
            number = {"query": form.factor, "query divided": 1 / form.factor, "both": form.factor**0.5}[form.scale]
            q = over(form, q, number)
        keys = self._transposed(form, k)
        if form.scale in ("key", "both"):
            keys = self._times(form, keys, form.factor if form.scale == "key" else form.factor**0.5)
        return q, op.Mul(keys, self._kept()) if fault == "mask on keys" else keys

    def _odd_scale(self, form: AttentionForm, scores: Any) -> Any:
        op = self.op
        if form.fault == "scale per head":
            return op.Mul(scores, np.linspace(0.3, 1, form.heads, dtype=np.float32).reshape(1, -1, 1, 1))
        if form.fault == "scale per query":
            return op.Mul(scores, op.Unsqueeze(op.ReduceMax(self.other, [-1]), [1]))
        if form.fault == "scale is an input":
            return op.Mul(scores, self.factor)
        return scores

    def _transposed(self, form: AttentionForm, k: Any) -> Any:
        op = self.op
        if form.fault == "not transposed":  # [B, H, S, D] read as [B, H, D, S]
            return op.Reshape(k, op.Concat(op.Shape(k, end=2), [form.size], op.Shape(k, start=2, end=3), axis=0))
        if form.fault == "keys reversed":
            k = op.Slice(k, [-1], [-(2**31)], [2], [-1])
        if form.keys == "once":
            return op.Transpose(k, perm=[0, 1, 3, 2])
        if form.keys == "twice":
            return op.Transpose(op.Transpose(k, perm=[0, 2, 1, 3]), perm=[0, 2, 3, 1])
        shape = op.Shape(k)
        flat = op.Reshape(k, op.Concat([-1], op.Slice(shape, [2], [4], [0]), axis=0))
        back = op.Concat(op.Slice(shape, [0], [2], [0]), op.Slice(shape, [3], [4], [0]), op.Slice(shape, [2], [3], [0]), axis=0)
        return op.Reshape(op.Transpose(flat, perm=[0, 2, 1]), back)

    # Masks

    def _kept(self) -> Any:
        """Return ``keep`` as floats [B, 1, 1, S]."""
        return self.op.Cast(self.op.Unsqueeze(self.keep, [1, 2]), to=ir.DataType.FLOAT.value)

    def _is_kept(self) -> Any:
        return self.op.Cast(self.op.Unsqueeze(self.keep, [1, 2]), to=ir.DataType.BOOL.value)

    def _added_mask(self, kind: str, form: AttentionForm) -> Any:
        op = self.op
        if kind in ("int", "lowest", "subtract"):
            lost = op.Sub(np.float32(1), self._kept())
            number = {"int": -10000.0, "lowest": LOWEST, "subtract": 10000.0}[kind]
            return op.Mul(np.float32(number), lost) if form.swapped else op.Mul(lost, np.float32(number))
        if kind in ("where", "infinite", "expanded"):
            low = np.float32(-np.inf if kind == "infinite" else LOWEST)
            keep = self._is_kept()
            if kind == "expanded":
                tokens = op.Shape(self.keep, start=1, end=2)
                keep = op.Expand(keep, op.Concat([1, 1], tokens, tokens, axis=0))
            return op.Where(keep, np.float32(0), low)
        if kind == "heads":
            return op.Mul(op.ReduceMax(self.added, [0]), np.linspace(0.5, 1, form.heads, dtype=np.float32).reshape(1, -1, 1, 1))
        return self.added

    def _masked(self, name: str, kind: str, form: AttentionForm, scores: Any) -> Any:
        op = self.op
        if kind == "select":
            return op.Where(self._is_kept(), scores, np.float32(LOWEST))
        if kind == "select not":
            return op.Where(op.Not(self._is_kept()), np.float32(-10000), scores)
        mask = self._added_mask(kind, form)
        if form.seen == "mask out":
            first, heads = (1, form.heads) if kind == "heads" else (self.batch, 1)
            queries = self.tokens if kind in ("expanded", "float", "heads") else 1
            self.outputs[name] = (op.Neg(mask), [first, heads, queries, self.tokens])
        if kind == "subtract":
            return op.Sub(scores, mask)
        return op.Add(mask, scores) if form.swapped else op.Add(scores, mask)

    def _merged(self, form: AttentionForm, context: Any) -> Any:
        op, width = self.op, form.heads * form.value_size
        fault = form.fault
        if fault == "merged size first":
            moved = op.Transpose(context, perm=[0, 2, 3, 1])
        elif fault == "merged backwards":
            moved = op.Slice(op.Transpose(context, perm=[0, 2, 1, 3]), [-1], [-(2**31)], [2], [-1])
        else:
            moved = context if fault == "unmerged" else op.Transpose(context, perm=[0, 2, 1, 3])
        if fault == "unmerged" or form.merge == "0,-1,W":
            return op.Reshape(moved, [0, -1, width])
        if form.merge == "computed":
            return op.Reshape(moved, op.Concat(op.Shape(moved, start=0, end=1), op.Shape(moved, start=1, end=2), [width], axis=0))
        return op.Reshape(moved, [0, 0, width if form.merge == "0,0,W" else -1])


def _rows(form: AttentionForm, keep_heads: tuple[int, ...] | None) -> np.ndarray | None:
    if keep_heads is None:
        return None
    return np.repeat(np.isin(np.arange(form.heads), keep_heads), form.value_size).astype(np.float32)
