"""The run loop: which passes run, what fails and what is then left, and that the same input gives the same bytes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import ffc
from ffc.graph.text import text
from tests.checkout import ROOT
from tests.graphs import LIBRARY, Draft, Stock, count, difference, encoder, feeds, masks, run_stock
from tests.kernels import needs_quantize_linear


@dataclass(frozen=True)
class Nothing(ffc.Pass):
    """Finds nothing to do."""

    name = "nothing"

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        log.missed("Softmax s", "far off", depth=1)
        log.missed("Softmax t", "its mask is not constant", depth=3)


@dataclass(frozen=True)
class Spoil(ffc.Pass):
    """Changes the model and then fails."""

    name = "spoil"

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        for value in model.graph.initializers.values():
            value.const_value = None
        for node in list(model.graph):
            node.metadata_props["spoilt"] = "yes"
        raise ffc.CannotApplyError("it went wrong")


def names(result: ffc.Result) -> list[tuple[str, str | None]]:
    return [(step.text.split("{")[0], step.needed_by) for step in result.report.steps]


def content(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("passes", "chain"),
    [
        ("fuse", ["opset", "clean", "fuse", "lower"]),
        ("int8", ["opset", "int8", "lower"]),
        ("fuse,int8", ["opset", "clean", "fuse", "int8", "lower"]),
        ("prune{by=norm heads=2}", ["opset", "clean", "fuse", "prune", "lower"]),
        ("clean,fuse", ["opset", "clean", "fuse", "lower"]),
        ("fuse,lower", ["opset", "clean", "fuse", "lower"]),
        ("", ["opset", "lower"]),
    ],
)
def test_what_a_pass_needs_runs_before_it_and_lower_runs_last(passes: str, chain: list[str]) -> None:
    asked = {item.split("{")[0] for item in passes.split(",")}
    found = names(ffc.compile(encoder(), passes))
    assert [name for name, _ in found] == chain
    assert {name for name, needed_by in found if needed_by is None} == asked - {""}


@pytest.mark.parametrize("after", ["fuse", "int8", "clean", "opset"])
def test_opset_runs_before_a_pass_that_does_not_ask_for_it_whatever_follows(after: str) -> None:
    result = ffc.compile(encoder(), [Nothing(), *(LIBRARY[name]() for name in [after])])
    assert [step.text for step in result.report.steps][:2] == ["opset", "nothing"]


def test_lower_is_no_pass_for_the_middle() -> None:
    with pytest.raises(ffc.UsageError, match="'lower' ends every compile"):
        ffc.compile(encoder(), "fuse,lower,int8")


def test_a_number_of_changes_that_was_not_expected_is_an_error_that_names_the_nearest_miss() -> None:
    with pytest.raises(ffc.CannotApplyError) as caught:
        ffc.compile(encoder(), [Nothing(expect=2)])
    assert str(caught.value) == "pass 'nothing': made 0 changes where expect=2; nearest: Softmax t: its mask is not constant"
    with pytest.raises(ffc.CannotApplyError, match=r"pass 'int8': made 7 changes where expect=6"):
        ffc.compile(encoder(), "fuse,int8{expect=6}")
    ffc.compile(encoder(), "fuse,int8{expect=7}")


def test_a_pass_that_finds_nothing_says_why() -> None:
    step = next(step for step in ffc.compile(encoder(), [Nothing()]).report.steps if step.text == "nothing")
    assert (step.changes, step.verdict) == ({}, None)
    assert any("its mask is not constant" in line for line in step.skipped)
    assert not any("far off" in line for line in step.skipped)


def test_a_pass_that_fails_leaves_the_input_untouched_and_writes_nothing(tmp_path: Path) -> None:
    model = encoder()
    before = content(model)
    with pytest.raises(ffc.CannotApplyError, match=r"^pass 'spoil': it went wrong$"):
        ffc.compile(model, [Spoil()], out=tmp_path / "out.onnx")
    assert content(model) == before
    assert not list(tmp_path.iterdir())


def test_a_model_in_memory_stays_as_it_is() -> None:
    model = encoder()
    before = content(model)
    result = ffc.compile(model, "prune{by=norm heads=2 ffn=10},fuse,int8{embeddings=true}")
    assert content(model) == before
    assert content(result.model) != before


def test_the_output_may_not_be_the_input(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    ffc.save(encoder(), path)
    before = path.read_bytes()
    with pytest.raises(ffc.UsageError, match="is an input"):
        ffc.compile(path, "fuse", out=tmp_path / "." / "model.onnx")
    assert path.read_bytes() == before


@pytest.mark.parametrize("compiled", [False, True])
def test_what_must_come_before_int8_is_refused_after_it(compiled: bool, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    if compiled:
        with pytest.raises(ffc.CannotApplyError, match="it is quantised already"):
            ffc.compile(ffc.compile(encoder(), "fuse,int8").model, "prune{by=norm heads=2}", out=out)
    else:
        with pytest.raises(ffc.CannotApplyError, match="'prune' comes after 'int8' in the pipeline; put it before"):
            ffc.compile(encoder(), "fuse,int8,prune{by=norm heads=2}", out=out)
    assert not out.exists()


PIPELINES = ["", "fuse", "int8", "fuse,int8", "prune{by=norm heads=2 ffn=0.5},fuse,int8{embeddings=true}"]


@pytest.mark.parametrize("passes", PIPELINES)
def test_portable_means_that_every_operator_is_standard(passes: str) -> None:
    result = ffc.compile(encoder(), passes, target="portable")
    proto = ir.to_proto(result.model)
    onnx.checker.check_model(proto, full_check=True)
    assert not proto.functions
    assert {entry.domain for entry in proto.opset_import} == {""}
    assert all(onnx.defs.has(node.op_type, 23, node.domain) for node in proto.graph.node)


@pytest.mark.parametrize("target", ["cpu", "portable"])
@pytest.mark.parametrize("passes", PIPELINES)
def test_no_function_of_ffc_is_left_and_stock_onnxruntime_runs_the_file(passes: str, target: str, tmp_path: Path) -> None:
    source, out = encoder(), tmp_path / "out.onnx"
    ffc.compile(source, passes, target=target, out=out)
    proto = onnx.load(out)
    assert not proto.functions
    assert {node.domain for node in proto.graph.node} <= {"", "com.microsoft"}
    before, after = Stock(source), Stock(out)
    for mask in masks(3, 9).values():
        inputs = feeds(mask)
        expected, found = before(inputs), after(inputs)
        assert found.keys() == expected.keys()
        if "int8" not in passes:
            assert difference(expected, found, mask) < 1e-5


@pytest.mark.parametrize("target", ["cpu", "portable"])
@pytest.mark.parametrize("passes", ["fuse,int8", PIPELINES[-1]])
def test_two_runs_write_the_same_bytes(passes: str, target: str, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    ffc.save(encoder(), source)
    outs = [tmp_path / f"{run}.onnx" for run in ("one", "other")]
    for out in outs:
        ffc.compile(source, passes, target=target, out=out)
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_compiling_a_portable_result_again_gives_the_same_graph() -> None:
    once = ffc.compile(encoder(layers=2), "fuse,int8", target="portable").model
    again = ffc.compile(once, "fuse,int8", target="portable").model
    assert text(again) == text(once)


def test_a_compiled_fp32_model_can_be_pruned() -> None:
    compiled = ffc.compile(encoder(layers=2), "fuse").model
    report = ffc.compile(compiled, "prune{by=norm heads=2 ffn=10},fuse,int8").report
    assert next(step.changes for step in report.steps if step.text.startswith("prune"))["heads"] == 2


@pytest.mark.parametrize("passes", ["fuse", "fuse,int8", "fuse,int8{embeddings=true}"])
def test_compiling_the_result_again_changes_nothing(passes: str, tmp_path: Path) -> None:
    once, twice = tmp_path / "once.onnx", tmp_path / "twice.onnx"
    ffc.compile(encoder(layers=2), passes, out=once)
    again = ffc.compile(once, passes, out=twice)
    assert once.read_bytes() == twice.read_bytes()
    if "int8" in passes:
        assert [step.changes for step in again.report.steps if step.changes] == []
        assert again.report.verdict is None


def test_weights_may_lie_beside_the_model(tmp_path: Path) -> None:
    source, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    ir.save(encoder(layers=2), source, external_data="model.data", size_threshold_bytes=0)
    assert (tmp_path / "model.data").stat().st_size > 1000
    ffc.compile(source, "fuse,int8", out=out)
    direct = tmp_path / "direct.onnx"
    ffc.compile(encoder(layers=2), "fuse,int8", out=direct)
    assert out.read_bytes() == direct.read_bytes()


def test_only_metadata_of_ffc_is_left() -> None:
    model = encoder()
    model.metadata_props["somebody"] = "noted this"
    model.metadata_props["ffc.task"] = "classification"
    result = ffc.compile(model, "fuse,int8{skip=head}")
    found = dict(result.model.metadata_props)
    assert {key for key in found if not key.startswith("ffc.")} == set()
    assert (found["ffc.task"], found["ffc.pipeline"]) == ("classification", "fuse,int8{skip=head}")


def test_the_report_says_what_was_done_proved_and_measured() -> None:
    lines: list[str] = []
    report = ffc.compile(encoder(layers=2), "fuse,int8", sets=["int8.skip=head"], progress=lines.append).report
    by_name = {step.text.split("{")[0]: step for step in report.steps}
    assert by_name["fuse"].changes["attention"] == 2
    assert {role: by_name["int8"].changes.get(role) for role in ("q", "ffn_out", "head")} == {"q": 2, "ffn_out": 2, "head": None}
    assert any("head" in line and "as asked" in line for line in by_name["int8"].skipped)
    verdict = by_name["fuse"].verdict
    assert verdict is not None
    assert (verdict.contract, verdict.probes) == ("equal to 0.0001", 10)
    assert verdict.difference < 1e-5
    assert report.verdict is not None
    assert 0.9 < report.verdict.cosine < 1
    assert report.pipeline == "fuse,int8{skip=head}"
    assert by_name["int8"].cost.bytes < report.before.bytes
    assert len(lines) == 1 + len(report.steps)


@needs_quantize_linear
def test_the_report_says_which_onnxruntime_the_kernels_need() -> None:
    draft = Draft()
    rounded = draft.op.QuantizeLinear(draft.input("x", 4), np.float32(0.5), np.uint8(3))
    model = draft.model({"y": (draft.op.DequantizeLinear(rounded, np.float32(0.5), np.uint8(3)), [4])})
    assert ffc.compile(model, "clean").report.oldest_onnxruntime == "1.24"
    assert ffc.compile(encoder(), "fuse").report.oldest_onnxruntime == "1.23"


def test_an_int8_model_is_held_to_its_budget_after_every_later_pass() -> None:
    steps = ffc.compile(encoder(), "fuse,int8").report.steps
    lower = steps[-1].verdict
    assert lower is not None
    assert lower.contract == "equal to 0.0001"
    assert lower.difference < 1e-4


def test_every_node_says_which_passes_and_rules_made_it() -> None:
    model = ffc.compile(encoder(pooler=False), "fuse,int8").model
    made = {node.op_type: node.metadata_props.get("ffc.by") for node in model.graph}
    assert made["MatMulIntegerToFloat"] == "fuse/linear, int8, lower/matmul-integer-to-float"
    assert made["Attention"] == "fuse/attention, lower/attention-23"
    assert not any("ffc.rule" in node.metadata_props for node in model.graph)


def test_a_compile_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    source, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    ffc.save(encoder(), source)
    code = (
        "import sys, ffc\n"
        f"ffc.compile({str(source)!r}, 'prune{{by=norm heads=2}},fuse,int8', out={str(out)!r})\n"
        "heavy = {'torch', 'transformers', 'accelerate'} & {name.split('.')[0] for name in sys.modules}\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert out.is_file()


def test_a_model_without_anything_to_do_comes_out_as_it_went_in() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 4)
    model = draft.model({"y": (draft.op.Relu(x), ["batch", 4])})
    result = ffc.compile(model, "fuse,int8")
    assert not any(step.changes for step in result.report.steps)
    assert count(result.model, "Relu") == len(result.model.graph) == 1
    assert np.array_equal(run_stock(result.model, {"x": -np.ones((1, 4), np.float32)})["y"], np.zeros((1, 4)))
