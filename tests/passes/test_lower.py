"""The pass `lower` leaves no call of an ``ffc`` function, writes what its target runs, and drops what exporters noted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

import ffc
from ffc import cli
from ffc.graph.execute import cuda_at_hand
from ffc.graph.text import text
from tests import encoders
from tests.graphs import Draft, Stock, count, difference, encoder, feeds, masks, run_passes, run_stock

FUSED = ("opset", "clean", "fuse")


@pytest.mark.parametrize("target", ["cpu", "cuda", "portable"])
def test_golden(target: str, golden_graph: Callable[[str, ir.Model], None]) -> None:
    golden_graph(f"lower-{target}", run_passes(encoder(), *FUSED, f"lower{{target={target}}}"))


@pytest.mark.parametrize("target", ["cpu", "portable"])
def test_golden_of_int8(target: str, golden_graph: Callable[[str, ir.Model], None]) -> None:
    model = run_passes(encoder(), *FUSED, "int8{embeddings=true range=narrow}", f"lower{{target={target}}}")
    golden_graph(f"lower-{target}-int8", model)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_golden_of_fp16(target: str, golden_graph: Callable[[str, ir.Model], None]) -> None:
    model = run_passes(encoder(), *FUSED, "fp16", f"lower{{target={target}}}")
    golden_graph(f"lower-{target}-fp16", model)


def test_golden_of_prune(golden_graph: Callable[[str, ir.Model], None]) -> None:
    golden_graph("prune", run_passes(encoder(), *FUSED, "prune{by=norm heads=2 ffn=11}"))


def test_the_cpu_gets_the_kernels_of_the_table() -> None:
    model = run_passes(encoder(layers=2), *FUSED, "int8", "lower")
    assert (count(model, "Attention"), count(model, "RMSNormalization"), count(model, "MatMulIntegerToFloat")) == (2, 5, 13)
    assert model.opset_imports["com.microsoft"] == 1
    assert not model.functions


@pytest.mark.parametrize("half", [False, True], ids=["float32", "half"])
def test_cuda_gets_its_fused_kernels(half: bool) -> None:
    model = run_passes(encoder(layers=2), *FUSED, *(["fp16"] if half else []), "lower{target=cuda}")
    kernels = {name: count(model, name) for name in ("MultiHeadAttention", "SkipLayerNormalization", "BiasGelu")}
    assert kernels == {"MultiHeadAttention": 2, "SkipLayerNormalization": 5, "BiasGelu": 2}
    assert model.opset_imports["com.microsoft"] == 1
    shared = {node.inputs[5] for node in model.graph if node.op_type == "MultiHeadAttention"}
    assert len(shared) == 1, "one mask serves all layers"


def test_what_cuda_leaves_to_the_cpu_is_said() -> None:
    notes = ffc.compile(encoder(), "fuse,int8", target="cuda").report.steps[-1].notes
    assert any("has no kernel for 7 int8 products" in note for note in notes)
    assert any("not run on CUDA" in note for note in notes) != cuda_at_hand()


def test_cuda_from_the_command_line(tmp_path: Path) -> None:
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    ffc.save(encoder(layers=2), path)
    assert cli.main(["compile", str(path), "--passes", "fuse", "--target", "cuda", "-o", str(out)]) == 0
    before, after = Stock(path), Stock(out)
    for length in (1, 9):
        for mask in masks(3, length).values():
            inputs = feeds(mask)
            assert difference(before(inputs), after(inputs), mask) < 1e-4


def test_products_of_one_input_share_its_quantisation() -> None:
    model = run_passes(encoder(), *FUSED, "int8", "lower")
    # one for q, k and v, one each for attn_out, ffn_in, ffn_out and the pooler
    assert count(model, "DynamicQuantizeLinear") == 5


@pytest.mark.parametrize("passes", [FUSED, (*FUSED, "int8{embeddings=true}")], ids=["fp32", "int8"])
def test_portable_is_of_standard_operators_alone(passes: tuple[str, ...]) -> None:
    model = run_passes(encoder(layers=2), *passes, "lower{target=portable}")
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert set(model.opset_imports) == {""}
    assert all(not node.domain and onnx.defs.has(node.op_type) for node in model.graph)


def test_portable_refuses_what_no_standard_operator_does() -> None:
    compiled = run_passes(encoder(), *FUSED, "int8", "lower")
    with pytest.raises(ffc.CannotApplyError, match=r"MatMulIntegerToFloat .* is no standard operator"):
        run_passes(compiled, "lower{target=portable}")


@pytest.mark.parametrize("target", ["cpu", "cuda", "portable"])
def test_notes_of_exporters_are_dropped(target: str) -> None:
    model = encoder()
    for node in model.graph:
        node.metadata_props["pkg.torch.onnx.stack_trace"] = "/home/somebody/model.py"
        node.doc_string = "/home/somebody/model.py"
    model.graph.inputs[0].metadata_props["note"] = "/home/somebody"
    after = run_passes(model, *FUSED, f"lower{{target={target}}}")
    assert b"somebody" not in ir.to_proto(after).SerializeToString()


def test_a_model_of_one_operator_is_left_as_it_is() -> None:
    draft = Draft()
    model = draft.model({"y": (draft.op.Relu(draft.input("x", 2)), [2])})
    assert text(run_passes(model, "lower")) == text(model)


@pytest.mark.parametrize("target", ["cpu", "cuda", "portable"])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_compiled_export_runs_in_stock_onnxruntime_and_is_equal_on_every_mask(
    kind: encoders.Kind, target: str, exported: Callable[..., Path], tmp_path: Path
) -> None:
    path, out = exported(kind), tmp_path / "out.onnx"
    ffc.compile(path, "fuse", target=target, out=out)
    proto = onnx.load(out)
    assert not proto.functions
    assert "ffc" not in {node.domain for node in proto.graph.node}
    before, after = Stock(path), Stock(out)
    for length in (1, 5, 33):
        for mask in masks(3, length).values():
            inputs = feeds(mask, vocabulary=encoders.VOCABULARY, types=kind == "bert")
            assert difference(before(inputs), after(inputs), mask) < 1e-4


@pytest.mark.parametrize("target", ["cpu", "cuda", "portable"])
def test_a_row_masked_throughout_is_finite_and_leaves_others_alone(target: str) -> None:
    model = encoder(layers=2, pooler=False)
    after = run_passes(model, *FUSED, f"lower{{target={target}}}")
    mask = masks(3, 6)["full"]
    mask[1] = 0
    inputs = feeds(mask)
    assert difference(run_stock(model, inputs), run_stock(after, inputs), mask) < 1e-5
