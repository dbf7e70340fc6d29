"""The matcher finds a pattern in every form that means the same and in no other, and names the nearest miss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ffc.compiler import rules
from ffc.compiler.log import Log
from ffc.compiler.rules import Rule, Sample, apply, by_root, is_constant, is_scalar, rank
from ffc.errors import CannotApplyError
from ffc.graph.dialect import ops
from ffc.graph.dialect.trace import Op, Program, Tensor, trace
from tests.graphs import LIBRARY, Draft, count, run_pass, run_stock

X = np.array([[1.0, -2.0, 3.0]], np.float32)

Make = Callable[[Any, Any], Any]


def rule(match: Program, rewrite: Program, **options: Any) -> Rule:
    return rules.rule("test", rewrite, samples=(), **options)(match)


def model_of(make: Make) -> ir.Model:
    """Return a model with input ``x`` [1, 3] and output ``y``, which `make` computes."""
    draft = Draft()
    result = make(draft.op, draft.input("x", 1, 3))
    return draft.model({"y": (result, [1, 3])})


def fires(found: Rule, make: Make) -> bool:
    model, log = model_of(make), Log()
    before = run_stock(model, {"x": X})["y"]
    fired = apply([found], model, log) > 0
    assert np.allclose(run_stock(model, {"x": X})["y"], before, rtol=1e-6)
    assert log.count == int(fired)
    return fired


def shifted(op: Op, x: Tensor) -> Tensor:
    return op.Relu(op.Add(x, 1.0))


def shifted_by_max(op: Op, x: Tensor) -> Tensor:
    return op.Max(op.Add(x, 1.0), 0.0)


RELU = rule(shifted, shifted_by_max)

SAME: dict[str, Make] = {
    "as written": lambda op, x: op.Relu(op.Add(x, 1.0)),
    "operands swapped": lambda op, x: op.Relu(op.Add(1.0, x)),
    "a constant with an axis": lambda op, x: op.Relu(op.Add(x, [1.0])),
    "a constant with two axes": lambda op, x: op.Relu(op.Add(x, np.ones((1, 1), np.float32))),
    "a constant off by rounding": lambda op, x: op.Relu(op.Add(x, np.float32(1.0000001))),
}

OTHER: dict[str, Make] = {
    "another constant": lambda op, x: op.Relu(op.Add(x, 1.01)),
    "a vector of constants": lambda op, x: op.Relu(op.Add(x, [1.0, 1.0, 1.0])),
    "another operator": lambda op, x: op.Relu(op.Sub(x, 1.0)),
    "computed where constant": lambda op, x: op.Relu(op.Add(x, op.Abs(x))),
    "nothing before": lambda op, x: op.Relu(x),
    "the same operator of another domain": lambda op, x: op.Relu(op.ffc.Norm(x, np.ones(3, np.float32), np.ones(3, np.float32), epsilon=1.0)),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_forms_that_mean_the_same_match(make: Make) -> None:
    assert fires(RELU, make)


@pytest.mark.parametrize("make", OTHER.values(), ids=OTHER)
def test_other_forms_do_not_match(make: Make) -> None:
    assert not fires(RELU, make)


@pytest.mark.parametrize(("axes", "matches"), [(1, True), (2, True), (3, False)])
def test_a_number_with_more_axes_than_what_it_is_applied_to_is_no_plain_number(axes: int, matches: bool) -> None:
    draft = Draft()
    x = draft.input("x", 1, 3)
    result = draft.op.Add(x, np.ones((1,) * axes, np.float32))
    model = draft.model({"y": (result, [1] * (axes - 2) + [1, 3])})
    found = rule(lambda op, x: op.Add(x, 1.0), lambda op, x: op.Sub(x, -1.0))
    assert (apply([found], model, Log()) > 0) is matches


def test_operands_of_other_operators_keep_their_order() -> None:
    found = rule(lambda op, x: op.Sub(x, 1.0), lambda op, x: op.Add(x, -1.0))
    assert fires(found, lambda op, x: op.Sub(x, 1.0))
    assert not fires(found, lambda op, x: op.Sub(1.0, x))


def test_a_tensor_named_twice_must_be_the_same_value() -> None:
    found = rule(lambda op, x: op.Mul(x, op.Sigmoid(x)), lambda op, x: op.Div(x, op.Add(op.Exp(op.Neg(x)), 1.0)))
    assert fires(found, lambda op, x: op.Mul(x, op.Sigmoid(x)))
    assert fires(found, lambda op, x: op.Mul(op.Sigmoid(x), x))
    assert not fires(found, lambda op, x: op.Mul(op.Abs(x), op.Sigmoid(x)))


def test_operands_are_swapped_at_every_level() -> None:
    def inner(op: Op, a: Tensor, b: Tensor) -> Tensor:
        return op.Add(op.Mul(a, op.Relu(b)), op.Neg(b))

    found = rule(inner, lambda op, a, b: op.Sub(op.Mul(a, op.Relu(b)), b))
    assert fires(found, lambda op, x: op.Add(op.Neg(x), op.Mul(op.Relu(x), op.Abs(x))))


def test_attributes_left_out_mean_their_defaults() -> None:
    found = rule(lambda op, x: op.Softmax(x, axis=-1), lambda op, x: op.Exp(op.LogSoftmax(x, axis=-1)))
    assert fires(found, lambda op, x: op.Softmax(x))
    assert fires(found, lambda op, x: op.Softmax(x, axis=-1))
    assert not fires(found, lambda op, x: op.Softmax(x, axis=0))
    bare = rule(lambda op, x: op.Softmax(x), lambda op, x: op.Exp(op.LogSoftmax(x)))
    assert fires(bare, lambda op, x: op.Softmax(x, axis=-1))
    assert not fires(bare, lambda op, x: op.Softmax(x, axis=0))


def test_an_attribute_of_the_program_takes_what_it_finds_once() -> None:
    def both(op: Op, x: Tensor, *, axis: int) -> Tensor:
        return op.Add(op.Softmax(x, axis=axis), op.LogSoftmax(x, axis=axis))

    def swapped(op: Op, x: Tensor, *, axis: int) -> Tensor:
        return op.Add(op.LogSoftmax(x, axis=axis), op.Identity(op.Softmax(x, axis=axis)))

    found = rule(both, swapped)
    assert fires(found, lambda op, x: op.Add(op.Softmax(x, axis=1), op.LogSoftmax(x, axis=1)))
    assert not fires(found, lambda op, x: op.Add(op.Softmax(x, axis=0), op.LogSoftmax(x, axis=1)))


@pytest.mark.parametrize("shared", [False, True])
def test_a_value_inside_that_something_else_reads_stops_a_rule_unless_it_may_be_shared(shared: bool) -> None:
    def make(op: Op, x: Tensor) -> Tensor:
        plus = op.Add(x, 1.0)
        return op.Sub(op.Relu(plus), plus)

    assert fires(rule(shifted, shifted_by_max, shared=shared), make) is shared


@pytest.mark.parametrize("shared", [False, True])
def test_an_output_of_the_model_inside_stops_a_rule_unless_it_may_be_shared(shared: bool) -> None:
    draft = Draft()
    plus = draft.op.Add(draft.input("x", 1, 3), 1.0)
    model = draft.model({"y": (draft.op.Relu(plus), [1, 3]), "plus": (plus, [1, 3])})
    before = run_stock(model, {"x": X})
    assert apply([rule(shifted, shifted_by_max, shared=shared)], model, Log()) == int(shared)
    after = run_stock(model, {"x": X})
    assert list(after) == list(before)
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_a_miss_says_how_far_it_got_and_why() -> None:
    found = rule(lambda op, x: op.Relu(op.Sub(x, 1.0)), lambda op, x: op.Max(op.Sub(x, 1.0), 0.0))
    model, log = model_of(lambda op, x: op.Neg(op.Relu(op.Sub(x, 2.0)))), Log()
    assert apply([found], model, log) == 0
    nearest = log.nearest()
    assert nearest is not None
    assert (nearest.where.split()[0], nearest.depth) == ("Relu", 2)
    assert nearest.why.startswith("rule test: the constant ")
    assert nearest.why.endswith(" is not 1.0")


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        (is_constant("w"), "w (x) is not constant"),
        (is_scalar("w"), "w is not one constant number"),
    ],
)
def test_conditions_on_constants_refuse_what_is_computed(condition: Any, why: str) -> None:
    found = rule(lambda op, x, w: op.Mul(op.Relu(x), w), lambda op, x, w: op.Relu(op.Mul(x, w)), where=(condition,))
    model, log = model_of(lambda op, x: op.Mul(op.Relu(op.Neg(x)), x)), Log()
    assert apply([found], model, log) == 0
    nearest = log.nearest()
    assert nearest is not None
    assert nearest.why.endswith(why)


def test_rank_and_scalar_look_at_the_constant() -> None:
    def scaled(op: Op, x: Tensor, w: Tensor) -> Tensor:
        return op.Mul(op.Relu(x), w)

    def scaled_first(op: Op, x: Tensor, w: Tensor) -> Tensor:
        return op.Max(op.Mul(x, w), 0.0)

    vector = rule(scaled, scaled_first, where=(is_constant("w"), rank("w", 1)))
    assert fires(vector, lambda op, x: op.Mul(op.Relu(x), [2.0, 3.0, 4.0]))
    assert not fires(vector, lambda op, x: op.Mul(op.Relu(x), 2.0))
    scalar = rule(scaled, scaled_first, where=(is_scalar("w"),))
    assert fires(scalar, lambda op, x: op.Mul(op.Relu(x), 2.0))
    assert not fires(scalar, lambda op, x: op.Mul(op.Relu(x), [2.0, 3.0, 4.0]))


def test_bind_computes_tensors_and_attributes_of_the_other_side() -> None:
    def softened(op: Op, x: Tensor, inverse: Tensor, *, axis: int) -> Tensor:
        return op.Softmax(op.Mul(x, inverse), axis=axis)

    found = rule(
        lambda op, x, w: op.Softmax(op.Div(x, w), axis=1),
        softened,
        where=(is_constant("w"),),
        bind=lambda match: {"inverse": 1 / match.array("w"), "axis": -1},
    )
    model = model_of(lambda op, x: op.Softmax(op.Div(x, [2.0, 4.0, 8.0]), axis=1))
    before = run_stock(model, {"x": X})["y"]
    assert apply([found], model, Log()) == 1
    assert count(model, "Div") == 0
    assert np.array_equal(run_stock(model, {"x": X})["y"], before)


def test_rules_are_applied_until_none_matches() -> None:
    absorbed = rule(lambda op, x: op.Relu(op.Relu(x)), lambda op, x: op.Relu(x))
    model, log = model_of(lambda op, x: op.Relu(op.Relu(op.Relu(op.Relu(x))))), Log()
    assert apply([absorbed], model, log) == 3
    assert log.done == {"test": 3}
    assert count(model, "Relu") == 1


def test_the_first_rule_of_the_table_that_matches_wins() -> None:
    first = rules.rule("first", shifted_by_max, samples=())(shifted)
    model, log = model_of(lambda op, x: op.Relu(op.Add(x, 1.0))), Log()
    apply([first, RELU], model, log)
    assert log.done == {"first": 1}
    model, log = model_of(lambda op, x: op.Relu(op.Add(x, 1.0))), Log()
    apply([RELU, first], model, log)
    assert log.done == {"test": 1}


def test_a_rule_that_names_a_function_calls_it_on_what_it_takes() -> None:
    def scaled(op: Op, x: Tensor, gamma: Tensor, *, epsilon: float, axis: int) -> Tensor:
        return op.LayerNormalization(x, gamma, epsilon=epsilon, axis=axis)

    found = rules.rule("test", ops.Norm, samples=(), bind=lambda match: {"beta": np.zeros(3, np.float32)})(scaled)
    assert list(trace(found.rewrite).inputs) == ["x", "gamma", "beta"]
    model = model_of(lambda op, x: op.LayerNormalization(x, np.ones(3, np.float32), axis=-1, epsilon=1e-3))
    before = run_stock(model, {"x": X})["y"]
    assert apply([found], model, Log()) == 1
    (node,) = (node for node in model.graph if node.op_type != "Constant")
    assert (node.domain, node.op_type, dict(node.attributes)) == ("ffc", "Norm", {"epsilon": ir.AttrFloat32("epsilon", 1e-3)})
    assert np.allclose(run_stock(model, {"x": X})["y"], before, atol=1e-6)


def test_rules_are_grouped_by_the_operator_they_end_in_and_keep_their_order() -> None:
    def other(op: Op, x: Tensor) -> Tensor:
        return op.ms.Gelu(op.Relu(x))

    first, second, third = (rules.rule(name, other, samples=())(shifted) for name in "abc")
    apart = rule(other, shifted)
    assert by_root([first, apart, second, third]) == {("", "Relu"): [first, second, third], ("com.microsoft", "Gelu"): [apart]}


def test_a_sample_is_drawn_anew_from_arrays_literals_and_what_draws() -> None:
    sample = Sample({"x": rules.normal(2, 3, mean=50), "c": rules.flags(4, 5)}, {"target": [0, -1], "one": 1.0, "w": X}, {"to": 1}, False)
    one, other = (sample.drawn(np.random.default_rng(seed)) for seed in (0, 1))
    assert (one.attributes, one.matches) == (sample.attributes, sample.matches)
    assert {name: (array.shape, array.dtype) for name, array in {**one.inputs, **one.constants}.items()} == {
        "x": ((2, 3), np.float32), "c": ((4, 5), np.bool_), "target": ((2,), np.int64), "one": ((), np.float32), "w": (X.shape, np.float32),
    }  # fmt: skip
    assert one.inputs["x"].min() > 40
    assert one.inputs["c"][:, 0].all() and not one.inputs["c"].all()
    assert not np.array_equal(one.inputs["x"], other.inputs["x"])
    assert np.array_equal(one.inputs["x"], sample.drawn(np.random.default_rng(0)).inputs["x"])
    drawn = rules.integers(3, 5, 100, dtype=np.int32)(np.random.default_rng(0))
    assert (drawn.dtype, set(drawn.tolist())) == (np.int32, {3, 4})


def test_a_node_whose_other_output_is_read_is_left_alone() -> None:
    """Replaced, it would survive for its other output and be matched again and again."""
    draft = Draft()
    x = draft.input("x", "batch", 6)
    normed, mean = draft.op.LayerNormalization(x, np.ones(6, np.float32), np.zeros(6, np.float32), outputs=2)
    model = draft.model({"y": (normed, ["batch", 6]), "mean": (mean, ["batch", 1])})
    log = run_pass(LIBRARY["fuse"](), model)
    assert log.count == 0
    assert count(model, "LayerNormalization") == 1


def test_rules_that_undo_each_other_come_to_an_end() -> None:
    there = rule(lambda op, x: op.Relu(x), lambda op, x: op.Max(x, 0.0))
    back = rule(lambda op, x: op.Max(x, 0.0), lambda op, x: op.Relu(x))
    with pytest.raises(CannotApplyError, match="rules still match after 64 sweeps"):
        apply([there, back], model_of(lambda op, x: op.Relu(x)), Log())
