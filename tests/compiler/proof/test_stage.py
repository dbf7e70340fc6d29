"""What a contract is held against: the model before, one made from it, or rows whose outputs are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.compiler.syntax import parse
from tests.graphs import LIBRARY, Draft, run_stock

WIDTH = 6


@pytest.fixture
def model() -> ir.Model:
    """Return a product of two layers, y [batch, 6]."""
    draft = Draft()
    x = draft.input("x", "batch", WIDTH)
    inner = draft.op.Relu(draft.linear("one", x, WIDTH, WIDTH))
    return draft.model({"y": (draft.linear("two", inner, WIDTH, WIDTH), ["batch", WIDTH])})


def _scaled(model: ir.Model, factor: float) -> ir.Model:
    """Scale the first column of the output of a model in place."""
    (whole,) = model.graph.outputs
    factors = ffc.Editor(model).constant(np.array([factor, *[1] * (WIDTH - 1)], np.float32), "factors")
    node = ir.node("Mul", [whole, factors])
    (y,) = node.outputs
    y.name, whole.name, y.type, y.shape = whole.name, "whole", whole.type, whole.shape
    model.graph.append(node)
    model.graph.outputs[0] = y
    return model


@dataclass(frozen=True)
class Scale(ffc.Pass):
    """Scales the first column of the output, and promises what a subclass says."""

    name = "scale"

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        _scaled(model, 0.9)
        log.did("scale")


def _less(model: ir.Model) -> ir.Model:
    return _scaled(model.clone(), 0.9)


def _other(model: ir.Model) -> ir.Model:
    return _scaled(model.clone(), 0.8)


class AsMade(Scale):
    contract = ffc.EqualToMasked(masked=_less)


class NotAsMade(Scale):
    contract = ffc.EqualToMasked(masked=_other)


class WithinOfMade(Scale):
    contract = ffc.Budget(0.999999, against=ffc.ModelFrom(_less, "the scaled model"))


@pytest.mark.parametrize("before", ["", "int8", "fp16"])
@pytest.mark.parametrize("kind", [AsMade, WithinOfMade])
def test_a_model_made_from_the_one_before_is_what_counts_also_once_numbers_are_rounded(
    kind: type[Scale], before: str, model: ir.Model
) -> None:
    steps = ffc.compile(model, [*parse(before, LIBRARY), kind()]).report.steps
    verdict = next(step.verdict for step in steps if step.text == "scale")
    assert verdict is not None
    assert verdict.contract == str(kind().contract)
    assert verdict.difference < 1e-4


@pytest.mark.parametrize("before", ["", "int8"])
def test_a_model_made_from_the_one_before_refuses_another_result(before: str, model: ir.Model) -> None:
    with pytest.raises(ffc.GateError, match=r"^pass 'scale': outputs differ by .* more than 0.0001, on output 'y'"):
        ffc.compile(model, [*parse(before, LIBRARY), NotAsMade()])


def _rows(model: ir.Model, factor: float) -> dict[str, np.ndarray]:
    rows = {"x": np.random.default_rng(1).standard_normal((5, WIDTH)).astype(np.float32)}
    return {**rows, "y": run_stock(model, rows)["y"] * [factor, *[1] * (WIDTH - 1)]}


@pytest.mark.parametrize("right", [True, False])
def test_outputs_that_are_known_for_rows_are_what_counts(right: bool, model: ir.Model) -> None:
    rows = _rows(model, 0.9 if right else -0.9)

    class OnRows(Scale):
        contract = ffc.Budget(0.999999, against=ffc.KnownRows(lambda before: rows, "my rows"))

    if not right:
        with pytest.raises(ffc.GateError, match=r"below the budget of 0.999999 against my rows on output 'y'"):
            ffc.compile(model, [OnRows()])
        return
    (verdict,) = [step.verdict for step in ffc.compile(model, [OnRows()]).report.steps if step.text == "scale"]
    assert verdict is not None
    assert (verdict.contract, verdict.probes) == ("cosine ≥ 0.999999 against my rows", 1)
