"""What a pass is said to take and to leave alone, block by block."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console

import ffc
from ffc import cli
from ffc.compiler.explain.explanation import FORMAT, Explanation, explain, to_json
from ffc.compiler.explain.table import explained
from ffc.compiler.survey import Finding
from ffc.graph.text import text
from tests.graphs import LIBRARY, Draft, encoder


def shown(explanation: Explanation) -> str:
    """Return what is printed where stdout is no terminal, without the blanks that fill the columns."""
    console = Console(width=10_000, highlight=False)
    with console.capture() as captured:
        console.print(explained(explanation))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def of_kind(explanation: Explanation, *kinds: str) -> list[Finding]:
    return [finding for finding in explanation.findings if finding.kind in kinds]


def with_output(model: ir.Model, op_type: str) -> ir.Model:
    """Let what the first `op_type` computes be an output of the model too."""
    node = next(node for node in model.graph if node.op_type == op_type)
    value = node.outputs[0]
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", 3, "seq", "seq"])
    model.graph.outputs.append(value)
    return model


@pytest.mark.parametrize("passes", ["fuse", "prune", "int8{skip=head}"])
def test_what_is_printed(passes: str, golden: Callable[[str, str], None]) -> None:
    explanation = explain(encoder(layers=2), passes)
    # Remarks are left out: those of int8 go by the processor.
    golden(f"explain-{passes.partition('{')[0]}", shown(replace(explanation, notes=[])))


def test_what_a_plan_cuts_is_noted() -> None:
    explanation = explain(encoder(layers=2), "prune{by=norm heads=2 ffn=0.5}")
    assert explanation.changes == {"heads": 2, "units": 20}
    assert explanation.notes[:2] == ["layer 0: heads 2 of 3", "layer 0: units 10 of 20"]
    assert "\nnote: layer 1: units 10 of 20\n" in shown(explanation)


def test_attention_that_is_left_alone_has_its_reason() -> None:
    explanation = explain(with_output(encoder(layers=2), "Softmax"))
    left, taken = sorted(of_kind(explanation, "attention"), key=lambda finding: finding.taken)
    assert left.name.startswith("Softmax ")
    assert left.why == "its probabilities are read by several nodes or are an output of the model"
    assert (taken.what, taken.why) == ("3 heads of 4, masked", "AttentionMasked")
    assert explanation.changes["attention"] == 1
    assert explanation.refused is None


def product(*, bias: bool) -> ir.Model:
    """Return a product, and where asked for the sum of it and what is computed."""
    draft = Draft()
    x, b = draft.input("x", "batch", 6), draft.input("b", "batch", 5)
    inner = draft.op.MatMul(x, draft.normal("w", 6, 5))
    return draft.model({"y": (draft.op.Neg(draft.op.Add(inner, b) if bias else inner), ["batch", 5])})


def test_a_product_that_no_rule_takes_names_the_nearest_rule() -> None:
    model = product(bias=True)
    [found] = of_kind(explain(model), "other", "head")
    assert (found.what, found.taken, found.why) == ("6×5", False, "rule linear: b (b) is not constant")
    [found] = of_kind(explain(product(bias=False)), "other", "head")
    assert (found.taken, found.why) == (False, "no rule takes it without a bias")


def test_a_norm_that_is_no_norm_of_the_last_axis() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 4, 6)
    gamma, beta = draft.normal("gamma", 4, 6), draft.normal("beta", 4, 6)
    model = draft.model({"y": (draft.op.LayerNormalization(x, gamma, beta, axis=-2), ["batch", 4, 6])})
    [found] = explain(model).findings
    assert (found.kind, found.name, found.taken) == ("norm", "y", False)
    assert found.why.startswith("rule norm: ")


@ffc.rule("gemm", ffc.ops.Linear, samples=())
def _gemm(op: ffc.Op, x: ffc.Tensor, w: ffc.Tensor, b: ffc.Tensor) -> ffc.Tensor:
    return op.Gemm(x, w, b)


@dataclass(frozen=True)
class Look(ffc.Pass):
    """Has one rule and does nothing."""

    name = "look"
    rules = (_gemm,)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        pass


def test_an_input_that_is_not_there_is_named() -> None:
    draft = Draft()
    y = draft.op.Gemm(draft.input("x", "batch", 6), draft.normal("w", 6, 5))
    [found] = explain(draft.model({"y": (y, ["batch", 5])}), [Look()]).findings
    assert (found.kind, found.name, found.why) == ("Gemm", "y", "rule gemm: b is not given")


def test_findings_alike_are_one_row_that_names_the_layers() -> None:
    rows = [
        Finding("ffn", f"view_{layer}", layer, "8 units", False, f"Add node_add_{layer} is not Mul")
        for layer in (0, 1, 2, 4)
    ]
    rows += [Finding("ffn", "view_3", 3, "8 units", True, "Linear")]
    rows += [Finding("head", "y", None, "", False, "over axis 1"), Finding("head", "z", None, "", False, "over axis 2")]
    lines = shown(Explanation("m.onnx", "fuse", [], {}, rows, [], None)).splitlines()
    assert [" ".join(line.split()) for line in lines[4:8]] == [
        "ffn 0–2, 4 8 units no Add node_add_0 is not Mul view_0 and 3 more",
        "ffn 3 8 units yes Linear view_3",
        "head no over axis 1 y",
        "head no over axis 2 z",
    ]


def test_names_cannot_write_to_the_terminal() -> None:
    row = Finding("head", "\x1b[31mred\n", None, "[b]", True, "[link]")
    [line] = [line for line in shown(Explanation("m", "fuse", [], {}, [row], [], None)).splitlines() if "red" in line]
    assert " ".join(line.split()) == "head [b] yes [link] \\x1b[31mred"


def test_prune_says_which_layer_it_cannot_cut() -> None:
    explanation = explain(with_output(encoder(layers=2), "Gelu"), "prune")
    found = {(finding.kind, finding.layer): finding for finding in of_kind(explanation, "heads", "units")}
    assert [finding.taken for finding in found.values()] == [True, False, True, True]
    assert found["units", 1].what == "20 units"
    assert found["heads", 0].what == "3 heads of 4"
    assert explanation.refused is None
    assert explanation.notes[-1].startswith("pass 'prune': no plan was given")


def test_prune_where_nothing_can_be_cut() -> None:
    explanation = explain(with_output(with_output(encoder(), "Softmax"), "Gelu"), "prune")
    assert not any(finding.taken for finding in explanation.findings)
    assert explanation.refused is not None
    assert explanation.refused.startswith("pass 'prune' can")


def test_a_plan_for_another_model_is_the_explanation(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"layers": [{"heads": [0]}]}')
    explanation = explain(encoder(layers=2), f"prune{{plan={path}}}")
    assert (
        explanation.refused
        == f"pass 'prune': {path}: the plan has 1 layers and the model has 2; make a plan for this model"
    )
    assert all(finding.taken for finding in explanation.findings)


def test_a_refusal_before_the_pass_is_the_explanation() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 6)
    model = draft.model({"y": (draft.op.RandomNormalLike(x), ["batch", 6])})
    explanation = explain(model)
    assert (explanation.before, explanation.findings) == ([], [])
    assert explanation.refused is not None
    assert explanation.refused.startswith("pass 'opset': RandomNormalLike ")


def test_of_a_pipeline_the_last_pass_is_explained() -> None:
    explanation = explain(encoder(), "fuse,int8")
    assert (explanation.text, explanation.before) == ("int8", ["opset", "clean", "fuse"])
    refused = explain(encoder(), "int8,prune")
    assert refused.refused == "'prune' comes after 'int8' in the pipeline; put it before"


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_every_pass_of_the_library_can_be_explained(name: str) -> None:
    model = encoder()
    before = text(model)
    explanation = explain(model, "fuse,lower" if name == "lower" else name)
    assert explanation.refused is None
    assert explanation.changes or explanation.findings
    assert shown(explanation).startswith(f"a model in memory: {name}")
    assert text(model) == before


@dataclass(frozen=True)
class Picky(ffc.Pass):
    """Takes one and leaves one, or fails."""

    name = "picky"

    fails: str = ffc.option("how", default="")

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        if self.fails == "exit":
            raise SystemExit(3)
        if self.fails:
            raise KeyError(self.fails)
        log.did("thing", where="x y")
        log.missed("Softmax s", "far off")
        log.missed("Softmax t", "a near miss of a rule", depth=2)
        log.note("a remark")


def test_of_other_passes_what_they_say_is_shown() -> None:
    explanation = explain(encoder(), [Picky()])
    assert explanation.findings == [
        Finding("thing", "x y", None, "", True, ""),
        Finding("Softmax", "s", None, "", False, "far off"),
    ]
    assert explanation.notes == ["a remark"]


class Mute(Picky):
    """Cannot say what it did."""

    def survey(self, tried: ffc.Tried) -> ffc.Survey:
        raise KeyError(len(tried.log.taken))


def test_the_accidents_of_a_survey_are_those_of_its_pass() -> None:
    with pytest.raises(ffc.CannotApplyError, match=r"^pass 'picky' failed with KeyError: 1; the fault is in the pass$"):
        explain(encoder(), [Mute()])


@pytest.mark.parametrize(("fails", "told"), [("x", "KeyError: 'x'"), ("exit", "SystemExit: 3")])
def test_the_accidents_of_a_pass_are_its_own(fails: str, told: str) -> None:
    reason = f"pass 'picky' failed with {told}; the fault is in the pass"
    assert explain(encoder(), [Picky(fails=fails)]).refused == reason
    with pytest.raises(ffc.CannotApplyError) as caught:
        ffc.compile(encoder(), [Picky(fails=fails)])
    assert str(caught.value) == reason


def test_what_cannot_be_explained() -> None:
    for passes, message in {
        "fuze": "unknown pass 'fuze' at column 1 of 'fuze'; did you mean 'fuse'?",
        "": "no pass to explain; name one, such as fuse",
        "lower,fuse": "'lower' ends every compile; put no pass after it",
    }.items():
        with pytest.raises(ffc.UsageError) as caught:
            explain(encoder(), passes)
        assert str(caught.value) == message


def test_json_has_every_finding(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    ffc.save(encoder(), path)
    assert cli.main(["explain", str(path), "--pass", "int8{skip=head}", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert captured.out == to_json(explain(path, "int8{skip=head}"))
    assert (found["format"], found["text"], found["before"]) == (FORMAT, "int8{skip=head}", ["opset"])
    assert [*found] == ["model", "text", "before", "changes", "findings", "notes", "refused", "format"]
    assert captured.err == "opset ...\nint8 ...\n"
    kept = [finding["kind"] for finding in found["findings"] if not finding["taken"]]
    assert kept == ["head"]
    assert {"kind": "q", "layer": 0, "what": "12×12", "taken": True}.items() <= found["findings"][0].items()


def test_a_refusal_goes_to_stdout_with_its_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    ffc.save(encoder(), path)
    assert cli.main(["explain", str(path), "--pass", "fuse{expect=99}"]) == 4
    captured = capsys.readouterr()
    assert "refused: pass 'fuse': made " in captured.out
    assert "error" not in captured.err


def test_weights_that_are_not_float32_are_told() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 6, dtype=ir.DataType.DOUBLE)
    weight = draft.weight("w", np.ones((6, 5)))
    model = draft.model({"y": (draft.op.MatMul(x, weight), ["batch", 5])}, dtype=ir.DataType.DOUBLE)
    [found] = explain(model, "int8").findings
    assert (found.what, found.taken, found.why) == ("6×5", False, "its weight is float64, not float32")
