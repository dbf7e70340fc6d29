"""Property: any graph in half or bfloat16 is widened, and gives what it means."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

import ffc
from ffc.graph.dialect.widen import in_float32, runnable
from tests.graphs import Draft, Stock
from tests.halves import BRAIN, FLOAT, HALF, as_half
from tests.properties.drafts import cases

WIDTH = 6
OPERATORS = ("Add", "Cast", "Clip", "Div", "Gelu", "MatMul", "Mul", "Norm", "ReduceMean", "Relu", "Softmax", "Tanh", "Transpose")


def model_of(steps: list[tuple[str, int, int]], outputs: list[int]) -> ir.Model:
    """Return a float32 model in which each step applies an operator to values before it, by their place."""
    draft = Draft(len(steps))
    values = [draft.input("x", "batch", "seq", WIDTH), draft.input("z", 1, "seq", WIDTH)]
    for place, (operator, one, other) in enumerate(steps):
        values.append(_apply(draft, place, operator, values[one % len(values)], values[other % len(values)]))
    chosen = dict.fromkeys(values[2 + place % len(steps)] for place in outputs)
    return draft.model({f"y{place}": (value, ["b", "s", WIDTH]) for place, value in enumerate(chosen)})


def _apply(draft: Draft, place: int, operator: str, x: ir.Value, z: ir.Value) -> Any:
    op = draft.op
    match operator:
        case "Add" | "Mul":
            return op.node(operator, x, z)
        case "Cast":
            return op.Cast(op.Sigmoid(op.Cast(x, to=FLOAT.value)), to=FLOAT.value)
        case "Clip":
            return op.Clip(x, np.float32(-1), np.float32(1))
        case "Div":
            return op.Div(x, op.Add(op.Abs(z), np.float32(1)))
        case "MatMul":
            return draft.linear(f"w{place}", x, WIDTH, WIDTH)
        case "Norm":
            return draft.norm(f"n{place}", x, WIDTH)
        case "ReduceMean":
            return op.Sub(x, op.ReduceMean(x, [-1]))
        case "Transpose":
            return op.Transpose(op.Tanh(op.Transpose(x, perm=[1, 0, 2])), perm=[1, 0, 2])
    return op.node(operator, x)


@cases(25)
@given(
    st.lists(st.tuples(st.sampled_from(OPERATORS), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8),
    st.lists(st.integers(0, 7), min_size=1, max_size=3),
    st.sampled_from([HALF, BRAIN]),
)
def test_any_graph_in_half_gives_what_it_means(steps: list[tuple[str, int, int]], outputs: list[int], dtype: ir.DataType) -> None:
    before = as_half(model_of(steps, outputs), dtype)
    result = ffc.compile(before, "fuse")
    assert [value.dtype for value in result.model.graph.outputs] == [dtype] * len(before.graph.outputs)
    random = np.random.default_rng(0)
    kind = np.float16 if dtype == HALF else np.float32  # numpy has no bfloat16
    given_ = {name: random.standard_normal((rows, 3, WIDTH)).astype(kind) for name, rows in (("x", 2), ("z", 1))}
    meant, found = Stock(in_float32(before))(given_), Stock(runnable(result.model))(given_)
    for name, array in meant.items():
        scale = np.abs(array).max(initial=1e-6)
        assert np.abs(array - found[name].astype(np.float32)).max() <= (1e-3 if dtype == HALF else 8e-3) * scale
