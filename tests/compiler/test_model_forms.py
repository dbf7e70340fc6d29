"""Models go in as what Python has of them, and a result goes out as a file or a session."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import ffc
from ffc.compiler import session as sessions
from ffc.compiler.library import Library
from ffc.graph.text import text
from tests.graphs import difference, encoder, feeds, masks, run_stock

MODEL = encoder()
PROTO = ir.to_proto(MODEL)
CONTENT = PROTO.SerializeToString()
FORMS: list[Any] = [CONTENT, bytearray(CONTENT), PROTO, MODEL, SimpleNamespace(model=MODEL)]
NAMES = ["bytes", "bytearray", "proto", "model", "program"]


@pytest.fixture(scope="module")
def result() -> ffc.Result:
    return ffc.compile(encoder(), "fuse,int8")


@pytest.mark.parametrize("model", FORMS, ids=NAMES)
def test_every_form_compiles_to_the_same_and_stays_as_it_is(model: Any) -> None:
    before = text(MODEL), PROTO.SerializeToString()
    result = ffc.compile(model, "fuse")
    assert text(result.model) == text(ffc.compile(encoder(), "fuse").model)
    assert result.report.source == "a model in memory"
    assert (text(MODEL), PROTO.SerializeToString()) == before


def test_a_file_that_is_open_compiles_and_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(CONTENT)
    with (tmp_path / "m.onnx").open("rb") as file:
        assert ffc.compile(file, "clean").report.source == str(tmp_path / "m.onnx")
        with pytest.raises(ffc.UsageError, match=r"m\.onnx"):
            ffc.compile(file, "clean", out=tmp_path / "m.onnx")


@pytest.mark.parametrize("model", FORMS, ids=NAMES)
def test_explanations_diffs_and_blocks_take_every_form(model: Any) -> None:
    assert ffc.explain(model, ["fuse"]) == ffc.explain(encoder(), "fuse")
    assert ffc.diff(model, io.BytesIO(CONTENT)).equal
    assert len(ffc.find_blocks(model).layers) == 1


def test_blocks_of_a_path_are_found_and_those_of_a_model_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(CONTENT)
    assert len(ffc.find_blocks(tmp_path / "m.onnx").layers) == len(ffc.find_blocks(str(tmp_path / "m.onnx")).layers) == 1
    assert {product.node for product in ffc.find_blocks(MODEL).products} <= {*MODEL.graph}


def test_a_lock_of_a_model_in_memory_names_the_file_to_check(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(CONTENT)
    passes = ["fuse", Library.default()["int8"](skip=("head",))]
    ffc.lock(CONTENT, passes, out=tmp_path / "m.lock", source="m.onnx")
    ffc.lock(tmp_path / "m.onnx", "fuse,int8{skip=head}", out=tmp_path / "file.lock")
    assert (tmp_path / "m.lock").read_text() == (tmp_path / "file.lock").read_text()
    assert ffc.check(tmp_path / "m.lock").passed
    assert ffc.check(tmp_path / "m.lock", model=PROTO).passed
    for given in ({}, {"out": tmp_path / "m.lock"}, {"source": "m.onnx"}):
        with pytest.raises(ffc.UsageError, match="a model in memory has no file; give out=, the lock, and source="):
            ffc.lock(CONTENT, **given)


def test_data_in_a_file_that_nobody_named_are_refused() -> None:
    proto = onnx.ModelProto.FromString(CONTENT)
    onnx.external_data_helper.convert_model_to_external_data(proto, size_threshold=0)
    with pytest.raises(ffc.InputError, match="keeps its data in a file, and a model in memory has no folder"):
        ffc.compile(proto, "fuse")


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_session_gives_what_the_file_gives(
    result: ffc.Result, in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_IN_MEMORY", 1 << 30 if in_memory else 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    inputs = feeds(masks(2, 7)["right"])
    session = result.session()
    assert isinstance(session, ort.InferenceSession)
    assert session.get_session_options().intra_op_num_threads == 1
    assert session.get_modelmeta().custom_metadata_map["ffc.pipeline"] == "fuse,int8"
    assert [*tmp_path.iterdir()] == []
    given = dict(zip([each.name for each in session.get_outputs()], session.run(None, dict(inputs)), strict=True))
    result.save(tmp_path / "m.onnx")
    assert difference(run_stock(tmp_path / "m.onnx", inputs), given) == 0


def test_a_result_is_saved_as_models_are(result: ffc.Result, tmp_path: Path) -> None:
    result.save(tmp_path / "m.onnx")
    ffc.save(result.model, tmp_path / "other.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == (tmp_path / "other.onnx").read_bytes()
    result.save(tmp_path / "apart.onnx", external=True)
    assert len([*tmp_path.glob("apart.onnx.*.data")]) == 1
    assert text(ffc.load(tmp_path / "apart.onnx")) == text(ffc.load(tmp_path / "m.onnx"))


@pytest.mark.parametrize("threads", [-1, True, 1.5, "2"])
def test_threads_are_a_number(result: ffc.Result, threads: Any) -> None:
    with pytest.raises(ffc.UsageError, match="wanted a whole number from 1, or 0"):
        result.session(threads=threads)


def test_a_session_for_cuda_wants_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ffc.MissingError, match="no CUDAExecutionProvider here; install onnxruntime-gpu"):
        ffc.compile(encoder(), "fuse", target="cuda").session()


@pytest.mark.slow
def test_a_program_that_torch_exported_compiles() -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4)).eval()
    rows = torch.ones(3, 8)
    free = {"input": {0: torch.export.Dim("rows")}}
    program = torch.onnx.export(module, (rows,), dynamo=True, dynamic_shapes=free, verbose=False)
    assert program is not None
    session = ffc.compile(program, ["fuse", "int8"]).session()
    with torch.no_grad():
        wanted = module(rows).numpy()
    (given,) = session.run(None, {session.get_inputs()[0].name: rows.numpy()})
    assert abs(wanted - given).max() < 0.05 * abs(wanted).max()
