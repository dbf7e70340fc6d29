"""`ffc plan`: what it asks for, prints and leaves alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc import cli, pruning
from ffc.pruning import LayerPlan, Plan
from ffc.settings.amount import Amount
from tests.fixtures.tensorflow1 import Form, bert
from tests.graphs import encoder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ffc.save(encoder(), "model.onnx")
    return tmp_path


def test_plan_calls_make_plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[object] = []

    class Plan:
        def save(self, path: Path) -> None:
            path.write_text("{}")

        def summary(self) -> str:
            return "2 of 4 heads"

    def make_plan(model: ir.Model, amount: Amount, **rest: object) -> Plan:
        asked.append((amount, rest))
        return Plan()

    monkeypatch.setattr("ffc.pruning.make_plan", make_plan)
    assert cli.main("plan model.onnx --heads 2 --ffn 0.5 --by norm -o p.json".split()) == 0
    assert asked == [(Amount(heads=2, ffn=0.5), {"importance": None, "by": "norm"})]
    assert Path("p.json").read_text() == "{}"
    assert capsys.readouterr().out == "2 of 4 heads\n"


def test_plan_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = Plan(layers=[LayerPlan(heads=[0, 2], of_heads=4)])
    monkeypatch.setattr(pruning, "make_plan", lambda *_, **__: made)
    out = tmp_path / "plan.json"
    assert cli.main(["plan", "model.onnx", "--by", "norm", "--heads", "2", "-o", str(out), "--json"]) == 0
    assert capsys.readouterr().out == out.read_text(encoding="utf-8")


def test_a_plan_never_goes_over_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.onnx"
    ffc.save(encoder(), model)
    before = model.read_bytes()
    assert cli.main(["plan", str(model), "--by", "norm", "--heads", "2", "-o", str(model)]) == 2
    assert capsys.readouterr().err == f"ffc: error: the output '{model}' is an input; name another file\n"
    assert model.read_bytes() == before


def test_what_an_old_opset_hides_is_scored_planned_and_pruned_all_the_same(tmp_path: Path) -> None:
    model, plan, scores = tmp_path / "model.onnx", tmp_path / "plan.json", tmp_path / "i.safetensors"
    ffc.save(bert(Form(11)), model)
    assert not any(layer.cuttable for layer in ffc.find_blocks(ffc.load(model)).layers)
    rows = {str(value.name): np.ones((4, 6), np.int32) for value in ffc.load(model).graph.inputs}
    np.savez(tmp_path / "rows.npz", **rows)
    assert cli.main(["score", str(model), "--data", str(tmp_path / "rows.npz"), "-o", str(scores)]) == 0
    assert cli.main(["plan", str(model), "--importance", str(scores), "--heads", "1", "-o", str(plan)]) == 0
    result = ffc.compile(model, f"prune{{plan={plan}}}", out=tmp_path / "out.onnx")
    assert result.report.steps[-2].changes
