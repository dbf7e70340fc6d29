"""A model may be given as a path, as what a file holds, or as a model in memory; all are held to the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ffc import limits
from ffc.errors import InputError, UsageError
from ffc.graph import files
from ffc.graph.text import text
from tests.graph.files.model_files import external, model_of, proto_of, weight, written

CONTENT = proto_of().SerializeToString()

FORMS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: CONTENT,
    "bytearray": lambda: bytearray(CONTENT),
    "memoryview": lambda: memoryview(CONTENT),
    "a strided memoryview": lambda: memoryview(bytes(each for byte in CONTENT for each in (byte, 0)))[::2],
    "a proto": proto_of,
    "an open file": lambda: io.BytesIO(CONTENT),
    "a model": model_of,
    "a program of torch": lambda: SimpleNamespace(model=model_of()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_model(form: str) -> None:
    given = FORMS[form]()
    assert text(files.load(given)) == text(model_of())
    assert (files.name_of(given), files.path_of(given)) == ("a model in memory", None)


def test_what_is_given_stays_as_it_is() -> None:
    proto, model, content = proto_of(), model_of(), bytearray(CONTENT)
    proto.doc_string = "kept"
    proto.metadata_props.add(key="ort_config", value="kept")
    before = proto.SerializeToString(), text(model)
    for given in (proto, model, content):
        loaded = files.load(given)
        assert "ort_config" not in loaded.metadata_props
        loaded.graph.inputs[0].name = "other"
        del loaded.graph.outputs[:]
    assert (proto.SerializeToString(), text(model)) == before
    loaded = files.load(content)
    content[:] = bytes(len(content))
    assert np.array_equal(weight(loaded), weight(model_of()))


def test_weights_of_a_program_are_copied_since_its_module_may_learn_on() -> None:
    program = SimpleNamespace(model=model_of())
    array = np.ones((32, 32), np.float32)
    program.model.graph.initializers["w"].const_value = ir.Tensor(array, name="w")
    loaded = files.load(program)
    array[:] = 2
    assert weight(program.model).max() == 2
    assert weight(loaded).max() == 1


def test_a_file_that_is_open_has_a_folder(tmp_path: Path) -> None:
    external(tmp_path)
    with (tmp_path / "m.onnx").open("rb") as file:
        assert np.array_equal(weight(files.load(file)), weight(model_of()))
        assert files.path_of(file) == tmp_path / "m.onnx"


@pytest.mark.parametrize("form", [bytes, io.BytesIO, onnx.ModelProto.FromString])
def test_data_that_lie_in_a_file_are_looked_for_nowhere(
    form: Callable[[bytes], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    external(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        files.load(form(Path("m.onnx").read_bytes()))
    assert str(caught.value) == (
        "cannot load a model in memory: tensor 'w' keeps its data in a file, and a model in memory has no folder to find "
        "it in; give the model's path, or load the data into it"
    )


def test_a_name_in_an_archive_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    external(tmp_path)
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO(Path("m.onnx").read_bytes())
    file.name = "m.onnx"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="a model in memory has no folder"):
        files.load(file)


@pytest.mark.parametrize("form", [bytes, bytearray, io.BytesIO])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"hello, this is no model\n" * 9, "not an ONNX model"),
        (CONTENT[:-9], "truncated"),
        (onnx.ModelProto(ir_version=10).SerializeToString(), "without a graph"),
    ],
)
def test_what_is_no_model_is_refused_in_memory_too(form: Callable[[bytes], Any], content: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=f"^cannot load a model in memory: .*{reason}"):
        files.load(form(content))


def test_a_proto_is_held_to_the_checks_of_files() -> None:
    proto = proto_of()
    proto.graph.node[0].input[0] = "nowhere"
    with pytest.raises(InputError, match="MatMul reads 'nowhere', which nothing produces"):
        files.load(proto)


@pytest.mark.parametrize("form", ["bytes", "a proto", "an open file"])
@pytest.mark.parametrize(("limit", "reason"), [({"file": 99}, "over the limit 'file' of 99"), ({"macs": 9}, "limit 'macs'")])
def test_limits_hold_in_memory_too(form: str, limit: dict[str, int], reason: str) -> None:
    with limits.applied(limits.Limits(**limit)), pytest.raises(InputError, match=reason):
        files.load(FORMS[form]())


def test_text_is_read_as_bytes(tmp_path: Path) -> None:
    file = written(tmp_path / "m.onnx", proto_of()).open(encoding="latin-1")
    with file, pytest.raises(UsageError, match=r"m\.onnx: it gives str; open it with mode 'rb'"):
        files.load(file)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"closed file; give its path"):
        files.load(file)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [3, None, [CONTENT], ir.Model, io.BytesIO, np.zeros(3)])
def test_what_is_no_model_is_told_what_is(given: Any) -> None:
    with pytest.raises(UsageError) as caught:
        files.load(given)
    assert str(caught.value) == (
        "a model is a path, bytes, an onnx.ModelProto, an onnx_ir.Model, a torch.onnx.ONNXProgram or a file opened for "
        f"reading bytes, not {type(given).__name__}"
    )
