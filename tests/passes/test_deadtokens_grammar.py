"""The pass `deadtokens` on random graphs of operators that treat tokens apart and of some that do not: right or untouched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import pytest

from ffc.compiler.syntax import parse
from ffc.graph.text import text
from ffc.graph.tidy import tidy
from tests.graphs import LIBRARY, Draft, Stock, run_pass
from tests.kernels import needs_norm_by_number

WIDTH, HEADS, TOKENS = 6, 2, 4
GRAPHS = 40
"""Graphs in each batch."""

TO_THE_END = 2**63 - 1


Operator: TypeAlias = "Callable[[Any, Any, Maker], Any]"


class Maker:
    """Makes one random graph."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.draft = Draft(seed)
        self.op: Any = self.draft.op
        self.tokens: int | str = TOKENS if seed % 3 == 0 else "seq"  # as `check` knows
        self.values: list[Any] = [self.draft.input("x", "batch", self.tokens, WIDTH)]
        rows = 1 if seed % 2 else self.tokens
        self.mask = self.draft.input("mask", "batch", 1, rows, self.tokens)

    def pick(self) -> Any:
        """Return a value made so far, the last one most likely."""
        return self.values[-1 - int(min(self.random.geometric(0.6) - 1, len(self.values) - 1))]

    def weight(self, *shape: int) -> np.ndarray:
        return (0.4 * self.random.standard_normal(shape)).astype(np.float32)

    def choose(self, table: Sequence[Operator]) -> Any:
        return table[int(self.random.integers(len(table)))]


def _attention(op: Any, x: Any, m: Maker) -> Any:
    q, k, v = (
        op.ffc.Linear(value, m.weight(WIDTH, WIDTH), m.weight(WIDTH)) for value in (x, m.values[-1], m.values[-1])
    )
    return op.ffc.Attention(q, k, v, heads=HEADS, scale=0.5)


def _attention_masked(op: Any, x: Any, m: Maker) -> Any:
    q, k, v = (op.ffc.Linear(x, m.weight(WIDTH, WIDTH), m.weight(WIDTH)) for _ in range(3))
    return op.ffc.AttentionMasked(q, k, v, m.mask, heads=HEADS, scale=0.5)


APART: list[Operator] = [
    lambda op, x, m: op.Tanh(x),
    lambda op, x, m: op.Gelu(x),
    lambda op, x, m: op.Add(x, m.pick()),
    lambda op, x, m: op.Mul(op.Sigmoid(x), m.pick()),
    lambda op, x, m: op.Max(x, m.pick(), np.float32(-0.5)),
    lambda op, x, m: op.Where(op.Greater(x, np.float32(0)), x, m.pick()),
    lambda op, x, m: op.Mul(x, m.weight(WIDTH)),
    lambda op, x, m: op.Clip(x, np.float32(-1), np.float32(1)),
    lambda op, x, m: op.MatMul(x, m.weight(WIDTH, WIDTH)),
    lambda op, x, m: op.ffc.LinearGelu(x, m.weight(WIDTH, WIDTH), m.weight(WIDTH)),
    lambda op, x, m: op.ffc.AddNorm(x, m.pick(), m.weight(WIDTH), m.weight(WIDTH), epsilon=1e-5),
    lambda op, x, m: op.ffc.Norm(x, m.weight(WIDTH), m.weight(WIDTH), epsilon=1e-5),
    lambda op, x, m: op.Softmax(x, axis=-1),
    lambda op, x, m: op.Sub(x, op.ReduceMean(x, [-1], keepdims=1)),
    lambda op, x, m: op.Slice(x, [0], [TO_THE_END], [0]),
    lambda op, x, m: op.Concat(*reversed(op.Split(x, [2, 4], axis=-1, outputs=2)), axis=2),
    lambda op, x, m: op.Add(x, op.Split(op.MatMul(x, m.weight(WIDTH, 2 * WIDTH)), axis=2, num_outputs=2, outputs=2)[1]),
    lambda op, x, m: op.Reshape(op.Transpose(op.Reshape(x, [0, 0, 2, -1]), perm=[0, 1, 3, 2]), [0, 0, -1]),
    lambda op, x, m: op.Add(x, m.weight(*[1] * int(m.random.integers(2)), TOKENS, WIDTH)) if m.tokens == TOKENS else op.Neg(x),
]  # fmt: skip
ATTENTION: list[Operator] = [_attention, _attention_masked]
TOGETHER: list[Operator] = [
    lambda op, x, m: op.Softmax(x, axis=1),
    lambda op, x, m: op.CumSum(x, np.int64(1)),
    lambda op, x, m: op.Slice(x, [-1], [-TO_THE_END], [1], [-1]),
    lambda op, x, m: op.Add(x, op.ReduceMean(x, [1], keepdims=1)),
    lambda op, x, m: op.Add(x, op.Gather(x, [-1], axis=1)),
    lambda op, x, m: op.MatMul(op.Softmax(op.MatMul(x, op.Transpose(x, perm=[0, 2, 1])), axis=-1), x),
    lambda op, x, m: op.LayerNormalization(x, np.float32(1.5), axis=1),
]
HEADS_OF_FEW: list[Operator] = [
    lambda op, x, m: op.Gather(x, np.int64(m.random.integers(-2, 2)), axis=1),
    lambda op, x, m: op.Gather(x, [0, -1], axis=1),
    lambda op, x, m: op.Gather(x, [1], axis=1),
    lambda op, x, m: op.Slice(x, [0], [1], [1]),
    lambda op, x, m: op.Slice(x, [-1, 0], [TO_THE_END, 2], [1, 2]),
    lambda op, x, m: op.Slice(x, [1], [3], [1]),
]  # fmt: skip


def random_model(seed: int) -> ir.Model:
    """Return a graph of a few random operators, of whose results one or two heads read few tokens, or rarely all."""
    maker = Maker(seed)
    for _ in range(int(maker.random.integers(2, 8))):
        table = (APART, ATTENTION, TOGETHER)[int(np.searchsorted([0.6, 0.9], maker.random.random()))]
        maker.values.append(maker.choose(table)(maker.op, maker.pick(), maker))
    outputs: dict[str, tuple[Any, list[int | str]]] = {}
    for number in range(int(maker.random.integers(1, 3))):
        head = _all if maker.random.random() < 0.05 else maker.choose(HEADS_OF_FEW)
        outputs[f"y{number}"] = (head(maker.op, maker.pick(), maker), [])
    model = maker.draft.model(outputs)
    for output in model.graph.outputs:
        output.shape = None
    return tidy(model)


def _all(op: Any, x: Any, maker: Maker) -> Any:
    return op.Identity(x)


def check(seed: int) -> bool:
    """Run the pass on one random graph, hold it to the graph before, and return whether it changed it."""
    before = random_model(seed)
    after = before.clone()
    (item,) = parse("deadtokens", LIBRARY)
    log = run_pass(item, after)
    assert log.count or text(after) == text(before), f"seed {seed} is told to be untouched and is not"
    one, other = Stock(before), Stock(after)
    fixed = seed % 3 == 0
    random = np.random.default_rng(seed)
    for batch, length in [(1, TOKENS), (2, TOKENS)] if fixed else [(1, 2), (2, 3), (3, 5)]:
        rows = 1 if seed % 2 else length
        inputs = {
            "x": random.standard_normal((batch, length, WIDTH)).astype(np.float32),
            "mask": 2 * random.standard_normal((batch, 1, rows, length)).astype(np.float32),
        }
        expected, found = one(inputs), other(inputs)
        for name, array in expected.items():
            np.testing.assert_allclose(
                found[name], array, rtol=0, atol=1e-5 * max(1.0, float(np.abs(array).max())), err_msg=f"seed {seed}"
            )
    return bool(log.count)


@needs_norm_by_number
@pytest.mark.parametrize("batch", range(5))
def test_random_graphs_are_right_or_untouched(batch: int) -> None:
    changed = [check(seed) for seed in range(batch * GRAPHS, (batch + 1) * GRAPHS)]
    assert GRAPHS / 5 < sum(changed) < GRAPHS
