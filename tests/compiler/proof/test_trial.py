"""A pass of anyone's can measure what it might do before it decides, as its contract will be judged."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.compiler.proof.contracts import Verdict
from tests.graphs import Draft


@dataclass(frozen=True)
class Stretch(ffc.Pass):
    """Scales the output by the largest factor tried that keeps it within the budget, as a user's own pass would."""

    name = "stretch"
    seen: dict[str, Verdict] = field(default_factory=dict)

    @property
    def contract(self) -> ffc.Budget:
        return ffc.Budget(cosine=0.9)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        assert log.trial is not None
        assert log.trial.rows == 40
        change(model, 0.5)
        self.seen["all"] = log.trial.measure(model)
        self.seen["first"] = log.trial.measure(model, rows=17)
        self.seen["none"] = log.trial.measure(model, rows=0)
        assert any(node.op_type == "Mul" for node in model.graph), "measuring leaves the model as it is"
        log.did("stretch")


def change(model: ir.Model, factor: float) -> None:
    """Multiply the first column of the output ``y`` by `factor`."""
    (y,) = model.graph.outputs
    editor = ffc.Editor(model)
    factors = np.array([factor, 1, 1], np.float32)
    editor.splice(
        lambda op, x, w, f: op.Mul(op.MatMul(x, w), f), dict(zip("xwf", [*y.producer().inputs, factors], strict=True)), replaces=y
    )  # type: ignore[union-attr]


@pytest.fixture
def model() -> ir.Model:
    draft = Draft()
    x = draft.input("x", "batch", 4)
    return draft.model({"y": (draft.op.MatMul(x, draft.normal("w", 4, 3)), ["batch", 3])})


def rows(number: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((number, 4)).astype(np.float32)


def test_a_trial_measures_what_the_contract_is_held_against(model: ir.Model) -> None:
    item = Stretch()
    report = ffc.compile(model, [item], data={"x": rows(40)}).report
    (verdict,) = (step.verdict for step in report.steps if step.text == "stretch")
    assert verdict is not None
    found = item.seen["all"]
    assert (found.difference, found.cosine, found.probes) == (verdict.difference, verdict.cosine, verdict.probes)
    assert 0.9 < found.cosine < 1


def test_a_trial_on_a_few_rows_takes_the_first_batches_of_the_users_and_no_made_up_ones(model: ir.Model) -> None:
    item = Stretch()
    ffc.compile(model, [item], data={"x": rows(40)})
    assert (item.seen["first"].probes, item.seen["none"].probes) == (2, 0)
    assert item.seen["first"].worst.startswith("output 'y' of probe 'data row")
    weight = next(iter(model.graph.initializers.values())).const_value
    assert weight is not None
    before = rows(40)[:32] @ weight.numpy()
    after = before * [0.5, 1, 1]
    cosines = (before * after).sum(axis=1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    assert item.seen["first"].cosine == pytest.approx(cosines.mean(), abs=1e-6)
