"""A function declared in one file is known to all: found, explained, printed, proved, lowered, quantised and thinned out around."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.compiler.chain import run
from ffc.compiler.library import Library
from ffc.compiler.syntax import parse
from ffc.graph.dialect.function import FUNCTIONS
from ffc.graph.text import text
from tests.checkout import ROOT
from tests.graphs import WIDTH, Draft, count, difference, run_stock

FILE = str(ROOT / "examples" / "own_function" / "rms_norm.py")
LAYERS = 2


def classifier() -> ir.Model:
    """Return an encoder with RMS norms written out, which gives logits [batch, 3] of the first token."""
    draft = Draft(0)
    op, heads, size = draft.op, 3, WIDTH // 3

    def norm(name: str, x: ir.Value) -> ir.Value:
        spread = op.Sqrt(op.Add(op.ReduceMean(op.Pow(x, np.float32(2)), [-1]), np.float32(1e-6)))
        return op.Mul(draft.normal(name, WIDTH), op.Mul(x, op.Reciprocal(spread)))

    x = op.Gather(draft.normal("word", 30, WIDTH), draft.input("input_ids", "batch", "seq", dtype=ir.DataType.INT64))
    for layer in range(LAYERS):
        inner = norm(f"{layer}.before", x)
        q, k, v = (
            op.Transpose(op.Reshape(draft.linear(f"{layer}.{role}", inner, WIDTH, WIDTH), [0, 0, heads, size]), perm=[0, 2, 1, 3])
            for role in "qkv"
        )
        scores = op.Mul(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), np.float32(size**-0.5))
        context = op.Transpose(op.MatMul(op.Softmax(scores, axis=-1), v), perm=[0, 2, 1, 3])
        x = op.Add(x, draft.linear(f"{layer}.out", op.Reshape(context, [0, 0, -1]), WIDTH, WIDTH))
        wide = op.Relu(draft.linear(f"{layer}.wide", norm(f"{layer}.between", x), WIDTH, 20))
        x = op.Add(x, draft.linear(f"{layer}.narrow", wide, 20, WIDTH))
    first = op.Gather(norm("last", x), np.int64(0), axis=1)
    return draft.model({"logits": (draft.linear("classifier", first, WIDTH, 3), ["batch", 3])})


NORMS = 2 * LAYERS + 1


def compiled(passes: str, **options: object) -> ffc.Result:
    return ffc.compile(classifier(), passes, plugins=[FILE], **options)


def changes(result: ffc.Result, name: str) -> dict[str, int]:
    return next(step.changes for step in result.report.steps if step.text.partition("{")[0] == name)


@pytest.fixture(scope="module")
def whole() -> ffc.Result:
    return compiled("rms-norm,fuse,deadtokens,int8")


def test_it_is_found_printed_and_explained() -> None:
    model = classifier()
    for item in ("opset", "clean", "rms-norm", "fuse"):
        (step,) = parse(item, Library.default([FILE]))
        model = run(step, model, ffc.Log())
    assert len(ffc.find_blocks(model).norms) == NORMS
    assert text(model).count("ffc.RmsNorm") >= NORMS
    explanation = ffc.explain(classifier(), "rms-norm,fuse", plugins=[FILE])
    norms = [finding for finding in explanation.findings if finding.kind == "norm"]
    assert [(norm.taken, norm.why) for norm in norms] == [(True, "RmsNorm")] * NORMS
    assert ffc.explain(classifier(), "rms-norm", plugins=[FILE]).changes == {"rms-norm": NORMS}


def test_it_is_proved_and_lowered(whole: ffc.Result) -> None:
    assert changes(whole, "rms-norm") == {"rms-norm": NORMS}
    assert all(step.verdict is not None for step in whole.report.steps if step.changes)
    assert changes(whole, "lower")["RmsNorm as rms-normalization"] == NORMS
    assert count(whole.model, "RMSNormalization") == NORMS
    assert not whole.model.functions


def test_a_portable_compile_writes_its_body() -> None:
    assert changes(compiled("rms-norm,fuse", target="portable"), "lower")["RmsNorm as its body"] == NORMS


def test_products_around_it_are_quantised(whole: ffc.Result) -> None:
    roles = {"q", "k", "v", "attn_out", "ffn_in", "ffn_out"}
    assert {role: changes(whole, "int8").get(role) for role in roles} == dict.fromkeys(roles, LAYERS)


def test_dead_tokens_are_dropped_through_it(whole: ffc.Result) -> None:
    def macs(passes: str) -> int:
        return compiled(passes).report.steps[-1].cost.macs

    alone, without, both = macs("rms-norm,fuse"), macs("fuse,deadtokens"), macs("rms-norm,fuse,deadtokens")
    assert both == without < alone


def test_what_it_computes_is_what_the_model_did() -> None:
    ids = {"input_ids": np.random.default_rng(0).integers(0, 30, (3, 9))}
    before, after = run_stock(classifier(), ids), run_stock(compiled("rms-norm,fuse,deadtokens").model, ids)
    assert difference(before, after) < 1e-4


def test_a_product_without_other_forms_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(op: ffc.Op, x: ffc.Tensor, w: ffc.Tensor, b: ffc.Tensor) -> ffc.Tensor:
        return op.Gelu(op.Add(op.MatMul(x, w), b))

    dense = ffc.Function(name="Dense", body=body, family="product", by_token=("x",), weight="w", bias="b", activation="Gelu")
    monkeypatch.setitem(FUNCTIONS, "Dense", dense)
    draft = Draft(0)
    x = draft.input("x", "batch", 4)
    wide = draft.op.ffc.Dense(x, draft.normal("w", 4, 5), draft.normal("b", 5))
    model = draft.model({"y": (wide, ["batch", 5])})
    for item in ("relu", "fp16", "int8"):
        (step,) = parse(item, Library.default())
        log = ffc.Log()
        assert count(run(step, model, log), "Dense") == 1
        assert not log.count
        assert item == "relu" or [miss.why for miss in log.misses] == [f"Dense has no form in {'half' if item == 'fp16' else item}"]


def test_a_body_that_nobody_declared_is_written_out() -> None:
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["": 23, "ffc": 1]>
        graph (float[n, 2] x) => (float[n, 2] y) { y = ffc.Twice(x) }
        <opset_import: ["": 23], domain: "ffc"> Twice (x) => (y) { y = Add(x, x) }
    """)
    result = ffc.compile(model, "fuse")
    assert [node.op_type for node in result.model.graph] == ["Add"]
    assert changes(result, "lower") == {"other functions as their bodies": 1}


def test_two_files_that_declare_functions_of_one_name_are_told_apart(tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(Path(FILE).read_text().replace('name = "rms-norm"', 'name = "other-norm"'))
    with pytest.raises(ffc.UsageError, match=r"two functions are named 'RmsNorm', in .*rms_norm\.py and .*other\.py:FuseRmsNorm"):
        ffc.compile(classifier(), "fuse", plugins=[FILE, str(other)])
    assert changes(ffc.compile(classifier(), "other-norm", plugins=[str(other)]), "other-norm") == {"rms-norm": NORMS}
    assert changes(compiled("rms-norm"), "rms-norm") == {"rms-norm": NORMS}


def test_a_function_of_the_dialect_keeps_its_name() -> None:
    with pytest.raises(ffc.UsageError, match="there is a function 'Norm' in the dialect already"):

        @ffc.function(family="norm")
        def Norm(op: ffc.Op, x: ffc.Tensor) -> ffc.Tensor:
            return x


def test_a_trait_of_a_tensor_that_is_not_there_is_refused() -> None:
    with pytest.raises(ffc.UsageError, match="function 'Odd' has no tensor 'skipp'; did you mean 'skip'"):

        @ffc.function(family="norm", skip="skipp")
        def Odd(op: ffc.Op, x: ffc.Tensor, skip: ffc.Tensor) -> ffc.Tensor:
            return op.Add(x, skip)
