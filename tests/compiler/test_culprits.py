"""What fails alone falls alone: a rule or lowering is left out where it breaks its pass, and the rest is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc import Op, Tensor, ops
from ffc.compiler.reports.report import Step
from ffc.compiler.rules import normal
from tests.graphs import Draft, difference, encoder, feeds, masks, run_stock


def chain(*factors: float) -> ir.Model:
    """Return a model that adds to x, [batch, 4], the Relu of itself times each of some factors, one after another."""
    draft = Draft()
    value = draft.input("x", "batch", 4)
    for factor in factors:
        value = draft.op.Add(draft.op.Relu(draft.op.Mul(value, np.float32(factor))), value)
    return draft.model({"y": (value, ["batch", 4])})


# Right for factors of at most 1.
@ffc.rule("relu-to-clip", lambda op, x, c: op.Max(op.Mul(x, op.Min(c, 1.0)), 0.0), samples=())
def _clipped(op: Op, x: Tensor, c: Tensor) -> Tensor:
    return op.Relu(op.Mul(x, c))


@ffc.rule("relu-to-max", lambda op, x: op.Max(x, 0.0), samples=())
def _max(op: Op, x: Tensor) -> Tensor:
    return op.Relu(x)


@ffc.rule("relu-to-nothing", lambda op, x: op.Foo(x), samples=())
def _unknown(op: Op, x: Tensor) -> Tensor:
    return op.Relu(x)


@dataclass(frozen=True)
class Own(ffc.Pass):
    """Applies the rules of a subclass."""

    name = "own"

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        ffc.rules.apply(self.rules, model, log)


class Both(Own):
    rules = (_clipped, _max)


class Wrong(Own):
    rules = (_clipped,)


class Invalid(Own):
    rules = (_unknown,)


def own_step(model: ir.Model, item: ffc.Pass) -> Step:
    result = ffc.compile(model, [item])
    inputs = {"x": normal(3, 4)(np.random.default_rng(0))}
    assert difference(run_stock(model, inputs), run_stock(result.model, inputs)) < 1e-5
    return next(step for step in result.report.steps if step.text.startswith("own"))


def test_a_rule_is_left_out_where_it_is_wrong_alone_and_the_next_that_fits_is_taken() -> None:
    step = own_step(chain(0.5, 3.0, 0.25, 1.0), Both())
    assert step.changes == {"relu-to-clip": 3, "relu-to-max": 1}
    (said,) = step.skipped
    assert said.startswith("relu-to-clip at '") and "left out, since with it outputs differ by " in said
    assert "on output 'y' of probe '" in said


def test_a_rule_that_is_wrong_at_many_places_is_left_out_everywhere() -> None:
    step = own_step(chain(*[3.0] * 20), Both())
    assert step.changes == {"relu-to-max": 20}
    assert len(step.skipped) == 2
    assert all("and wherever else it fits" in said for said in step.skipped)


def test_a_pass_of_which_nothing_is_left_changes_nothing() -> None:
    step = own_step(chain(3.0), Wrong())
    assert (step.changes, step.verdict, len(step.skipped)) == ({}, None, 1)


def test_what_the_checker_refuses_is_left_out_too() -> None:
    step = own_step(chain(0.5), Invalid())
    assert not step.changes
    assert "the result is not valid ONNX" in step.skipped[0]


def test_a_change_made_by_hand_is_left_out_if_the_pass_asks_before() -> None:
    class ByHand(Own):
        def run(self, model: ir.Model, log: ffc.Log) -> None:
            for node in model.graph:
                factor = ffc.constant(node.inputs[1]) if node.op_type == "Mul" else None
                if factor is not None and log.takes("at most 1", node.outputs[0].name):
                    ffc.Editor(model).replace_input(node, 1, ffc.Editor(model).constant(np.minimum(factor, np.float32(1))))
                    log.did("at most 1")

    step = own_step(chain(0.5, 3.0, 0.25), ByHand())
    assert step.changes == {"at most 1": 2}
    assert [said.partition(":")[0] for said in step.skipped] == ["at most 1 at 'val_5'"]


def test_a_number_of_changes_that_was_asked_for_is_still_asked_for() -> None:
    with pytest.raises(ffc.CannotApplyError, match="made 0 changes where expect=1"):
        ffc.compile(chain(3.0), [Wrong(expect=1)])


def test_what_fails_as_a_whole_is_refused() -> None:
    class Whole(Own):
        rules = (_max,)

        def run(self, model: ir.Model, log: ffc.Log) -> None:
            super().run(model, log)
            for node in model.graph:
                if node.op_type == "Add":
                    node.op_type = "Sub"
            log.did("sub")

    with pytest.raises(ffc.GateError, match=r"^pass 'own': outputs differ by .*; nothing was written$"):
        ffc.compile(chain(0.5), [Whole()])


def test_a_budget_that_a_rule_breaks_is_refused() -> None:
    class Spends(Own):
        rules = (_clipped,)
        contract = ffc.Budget(0.9999999)

    with pytest.raises(ffc.GateError, match="below the budget"):
        ffc.compile(chain(3.0, -2.0), [Spends()])


@pytest.fixture
def lowering() -> Iterator[None]:
    """Declare lowerings of `Linear` for as long as a test runs: one that loses the bias, and one that is right."""
    own = ops.Linear._own_lowerings
    kept = list(own)

    @ops.Linear.lowering("no-bias", target="cpu")
    def no_bias(op: Op, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return op.MatMul(x, w)

    @ops.Linear.lowering("turned", target="cpu")
    def turned(op: Op, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return op.Add(b, op.MatMul(x, w))

    yield
    own[:] = kept


@pytest.mark.usefixtures("lowering")
def test_a_lowering_is_left_out_where_it_is_wrong_and_the_next_is_taken() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 4)
    weight = draft.normal("w", 4, 4)
    right = draft.op.ffc.Linear(x, weight, draft.weight("zero", np.zeros(4, np.float32)))
    wrong = draft.op.ffc.Linear(draft.op.Tanh(right), weight, draft.normal("b", 4))
    model = draft.model({"y": (wrong, ["batch", 4])})
    result = ffc.compile(model, [])
    inputs = {"x": normal(3, 4)(np.random.default_rng(0))}
    assert difference(run_stock(model, inputs), run_stock(result.model, inputs)) < 1e-5
    step = result.report.steps[-1]
    assert (step.changes["Linear as no-bias"], step.changes["Linear as turned"]) == (1, 1)
    (said,) = step.skipped
    assert said.startswith("Linear as no-bias at 'y': left out, since with it outputs differ by ")


def test_a_kernel_that_onnxruntime_refuses_is_written_as_the_body() -> None:
    own = ops.AddNorm._own_lowerings
    kept = list(own)

    @ops.AddNorm.lowering("rms-norm", target="cpu")
    def unknown(op: Op, x: Tensor, skip: Tensor, gamma: Tensor, beta: Tensor, *, epsilon: float) -> Tensor:
        return op.ms.NoSuchKernel(x)

    try:
        model = encoder(layers=2)
        result = ffc.compile(model, "fuse")
    finally:
        own[:] = kept
    mask = masks(2, 5)["left"]
    assert difference(run_stock(model, feeds(mask)), run_stock(result.model, feeds(mask)), mask) < 1e-4
    step = result.report.steps[-1]
    assert (step.changes["AddNorm as its body"], step.changes["AttentionMasked as attention-23"]) == (4, 2)
    assert "AddNorm as rms-norm" in step.skipped[0]
    assert "NoSuchKernel" in step.skipped[0]
