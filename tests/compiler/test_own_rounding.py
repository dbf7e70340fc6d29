"""A pass that rounds and explains itself is one file: others are told apart from it by what it says of itself alone."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc import cli
from ffc.compiler.library import Library
from ffc.compiler.proof.contracts import Verdict
from ffc.compiler.syntax import parse
from tests.checkout import ROOT
from tests.graphs import encoder

FILE = str(ROOT / "tests" / "fixtures" / "coarse.py")


@dataclass(frozen=True)
class Rescale(ffc.Pass):
    """Makes what is rounded three times as large, and its weight as much smaller: the same, but for the rounding."""

    name = "rescale"

    weight: float = ffc.option("what weights are divided by", default=3.0)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        editor = ffc.Editor(model)
        for node in [node for node in model.graph if node.op_type == "LinearCoarse"]:
            x, w, b = node.inputs
            given = {"x": x, "w": (ffc.constant(w) / self.weight).astype(np.float32), "b": b}
            editor.splice(
                lambda op, x, w, b: op.ffc.LinearCoarse(op.Mul(x, 3.0), w, b), given, replaces=node.outputs[0]
            )
            log.did("product")


def compiled(passes: str, *more: ffc.Pass) -> dict[str, Verdict]:
    """Return what was measured after each pass that changed something, and of all together as ``whole``."""
    report = ffc.compile(encoder(), [*parse(passes, Library.default([FILE])), *more]).report
    found = {step.text.partition("{")[0]: step.verdict for step in report.steps} | {"whole": report.verdict}
    return {name: verdict for name, verdict in found.items() if verdict is not None}


@pytest.mark.parametrize("after", ["deadtokens", "prune{by=norm heads=2}", "relu"])
def test_what_must_run_before_numbers_are_rounded_is_refused_after_it(after: str) -> None:
    name = after.partition("{")[0]
    with pytest.raises(ffc.CannotApplyError, match=f"^'{name}' comes after 'coarse' in the pipeline; put it before$"):
        compiled(f"coarse,{after}")


def test_it_says_itself_what_it_takes() -> None:
    explanation = ffc.explain(encoder(), "coarse", plugins=[FILE])
    assert (explanation.before, explanation.changes) == (["opset", "clean", "fuse"], {"product": 6})
    assert explanation.listed
    assert [(finding.kind, finding.taken) for finding in explanation.findings].count(("call", True)) == 6
    assert {finding.why for finding in explanation.findings if not finding.taken} == {"LinearGelu"}


def test_its_proof_is_its_budget() -> None:
    verdict = compiled("coarse")["coarse"]
    assert verdict.contract == "cosine ≥ 0.99"
    assert verdict.difference > 1e-4
    with pytest.raises(ffc.GateError, match=r"^pass 'coarse': mean cosine .* is below the budget of 1 on"):
        compiled("coarse{cosine=1}")


def test_what_promises_equality_after_it_is_proved_on_the_float32_meaning() -> None:
    alone, found = compiled("coarse"), compiled("coarse", Rescale())
    assert abs(alone["whole"].difference - found["whole"].difference) > 1e-4, "what is rounded is not the same"
    for name in ("rescale", "lower"):
        assert found[name].contract == "equal to 0.0001"
        assert found[name].difference < 1e-4
    with pytest.raises(ffc.GateError, match=r"^pass 'rescale': outputs differ by .* more than 0.0001, on"):
        compiled("coarse", Rescale(weight=2.9))


def test_the_list_of_passes_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["passes", "coarse", "--plugin", FILE, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rounds"], found["before_rounding"], found["contract"]) == (True, False, "cosine ≥ 0.99")
    assert cli.main(["passes", "coarse", "--plugin", FILE]) == 0
    assert "\nrounds numbers\n" in capsys.readouterr().out
