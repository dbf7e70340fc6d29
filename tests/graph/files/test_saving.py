"""Saved models are whole, the same every time, and go over nothing that is still needed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from ffc.errors import InputError, UsageError
from ffc.graph import files
from ffc.graph.files import publish, saving
from ffc.graph.text import text
from tests.graph.files.model_files import data_file, external, listing, model_of, weight


def test_external_data_hold_large_weights_only(tmp_path: Path) -> None:
    files.save(model_of(), tmp_path / "m.onnx", external=True)
    content = weight(model_of()).tobytes()
    assert sorted(listing(tmp_path)) == ["m.onnx", f"m.onnx.{hashlib.sha256(content).hexdigest()[:16]}.data"]
    assert data_file(tmp_path).read_bytes() == content
    assert text(files.load(tmp_path / "m.onnx")) == text(model_of())
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    x = np.ones((1, 32), np.float32)
    expected = np.maximum(x @ weight(model_of()), 0) + np.arange(32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-6)


def test_data_go_outside_when_they_exceed_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "_INLINE_LIMIT", 4096)
    files.save(model_of(), tmp_path / "m.onnx")
    assert sorted(listing(tmp_path)) == ["m.onnx", data_file(tmp_path).name]
    with pytest.raises(UsageError, match="do not fit"):
        files.save(model_of(), tmp_path / "n.onnx", external=False)
    assert not (tmp_path / "n.onnx").exists()


def test_saving_over_the_data_that_a_model_maps_is_safe(tmp_path: Path) -> None:
    path = external(tmp_path)
    model = files.load(path)
    files.save(model_of(scale=2.0), path, external=True)
    np.testing.assert_array_equal(weight(files.load(path)), weight(model_of(scale=2.0)))
    np.testing.assert_array_equal(weight(model), weight(model_of()))
    files.save(model, path, external=True)
    np.testing.assert_array_equal(weight(files.load(path)), weight(model_of()))


def test_saving_a_model_with_lazy_tensors_of_onnx_ir_over_itself_is_safe(tmp_path: Path) -> None:
    path = external(tmp_path)
    files.save(ir.load(path), path, external=True)
    np.testing.assert_array_equal(weight(files.load(path)), weight(model_of()))
    files.save(ir.load(path), path)
    assert list(listing(tmp_path)) == ["m.onnx"], "the data file that nothing names any more is gone"
    np.testing.assert_array_equal(weight(files.load(path)), weight(model_of()))


def test_a_loaded_model_serialises_whole_without_its_files(tmp_path: Path) -> None:
    path = external(tmp_path)
    model = files.load(path)
    path.unlink()
    data_file(tmp_path).unlink()
    onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("dtype", [ir.DataType.BFLOAT16, ir.DataType.INT4, ir.DataType.INT8, ir.DataType.BOOL])
def test_every_width_survives_external_data(tmp_path: Path, dtype: ir.DataType) -> None:
    array = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(dtype.numpy())
    constant = ir.Value(name="w", const_value=ir.Tensor(array, dtype, name="w"))
    constant.dtype, constant.shape = dtype, ir.Shape(array.shape)
    node = ir.node("Identity", [constant])
    node.outputs[0].name = "y"
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=[constant], opset_imports={"": 23})
    model = ir.Model(graph, ir_version=10)
    files.save(model, tmp_path / "m.onnx", external=True)
    assert data_file(tmp_path).stat().st_size == 4096 * dtype.bitwidth // 8
    assert text(files.load(tmp_path / "m.onnx")) == text(model)


@pytest.mark.parametrize("outside", [False, True])
def test_saves_the_same_bytes_every_time(tmp_path: Path, outside: bool) -> None:
    contents = []
    for order in (("a", "b"), ("b", "a")):
        model = model_of()
        for key in order:
            model.metadata_props[key] = model.graph[0].metadata_props[key] = key
        files.save(model, tmp_path / "m.onnx", external=outside)
        contents.append(listing(tmp_path))
    assert contents[0] == contents[1]


def test_saving_does_not_change_the_model(tmp_path: Path) -> None:
    model = model_of()
    tensors = [value.const_value for value in model.graph.initializers.values()]
    files.save(model, tmp_path / "m.onnx", external=True)
    assert [value.const_value for value in model.graph.initializers.values()] == tensors


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failure_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """Whichever of the replacements fails: that of the data or that of the model."""
    files.save(model_of(), tmp_path / "m.onnx", external=True)
    before = listing(tmp_path)
    calls = []
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="No space left on device; nothing was changed"):
        files.save(model_of(scale=2.0), tmp_path / "m.onnx", external=True)
    assert listing(tmp_path) == before


def test_data_of_former_models_go_unless_another_file_names_them(tmp_path: Path) -> None:
    files.save(model_of(), tmp_path / "m.onnx", external=True)
    first = data_file(tmp_path).name
    files.save(model_of(scale=2.0), tmp_path / "m.onnx", external=True)
    second = data_file(tmp_path).name
    assert first != second and sorted(listing(tmp_path)) == ["m.onnx", second]
    (tmp_path / "copy.onnx").write_bytes((tmp_path / "m.onnx").read_bytes())
    (tmp_path / "m.onnx.data").write_bytes(b"not one of ours")
    files.save(model_of(), tmp_path / "m.onnx", external=True)
    assert sorted(listing(tmp_path)) == sorted(["copy.onnx", "m.onnx", "m.onnx.data", first, second])
    np.testing.assert_array_equal(weight(files.load(tmp_path / "copy.onnx")), weight(model_of(scale=2.0)))


def test_temporary_files_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    (tmp_path / ".ffc-dead.tmp").write_bytes(b"left behind")
    with publish.Staging() as staging:
        temporary = staging.write([b"being written"], tmp_path / "other").temporary
        assert temporary is not None
        files.save(model_of(), tmp_path / "m.onnx")
        assert sorted(listing(tmp_path)) == sorted([temporary.name, "m.onnx"])
    assert list(listing(tmp_path)) == ["m.onnx"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="No space left"):
        files.save(model_of(), tmp_path / "m.onnx")
    assert listing(tmp_path) == {}


def test_external_data_lie_beside_the_file_that_a_link_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.onnx"
    link.symlink_to("real/m.onnx")
    for scale in (1.0, 2.0):
        files.save(model_of(scale=scale), link, external=True)
        assert sorted(listing(tmp_path / "real")) == ["m.onnx", data_file(tmp_path / "real").name]
        for lazily in (False, True):
            np.testing.assert_array_equal(weight(files.load(link, lazily=lazily)), weight(model_of(scale=scale)))
        assert files.size(link) == sum(len(content) for content in listing(tmp_path / "real").values())
    files.save(model_of(), link)
    assert link.is_symlink() and list(listing(tmp_path / "real")) == ["m.onnx"]
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["link.onnx"]


@pytest.mark.parametrize("outside", [False, True])
def test_a_replaced_file_keeps_mode_and_owner_and_a_new_one_has_those_of_the_system(
    tmp_path: Path, outside: bool
) -> None:
    umask = os.umask(0o027)
    try:
        files.save(model_of(), tmp_path / "m.onnx", external=outside)
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o640}
    (tmp_path / "m.onnx").chmod(0o604)
    if os.geteuid() == 0:
        os.chown(tmp_path / "m.onnx", 4321, 4322)
    before = (tmp_path / "m.onnx").stat()
    files.save(model_of(scale=2.0), tmp_path / "m.onnx", external=outside)
    for each in tmp_path.iterdir():  # the weights are as private as the model
        now = each.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_an_owner_that_cannot_be_kept_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    (tmp_path / "tool").touch()
    if os.geteuid() == 0:
        os.chown(tmp_path / "tool", 4321, 4322)
    (tmp_path / "tool").chmod(0o6754)
    monkeypatch.setattr(os, "fchown", refuse)
    publish.write(tmp_path / "tool", b"x")
    kept = 0o754 if os.geteuid() == 0 else 0o6754  # who runs as its owner must be who did so before
    assert stat.S_IMODE((tmp_path / "tool").stat().st_mode) == kept


def test_nobody_else_reads_a_file_that_is_being_written(tmp_path: Path) -> None:
    (tmp_path / "m").touch(mode=0o600)

    def pieces() -> Iterator[bytes]:
        assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}
        yield b"x"

    with publish.Staging() as staging:
        staging.place(staging.write(pieces(), tmp_path / "m"))
    assert (tmp_path / "m").read_bytes() == b"x"


def test_weights_apart_do_not_go_where_no_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", "-"):
        with pytest.raises(UsageError, match=f"cannot save {place}: its weights need a file of their own .*; save to"):
            files.save(model_of(), place, external=True)
    monkeypatch.setattr(saving, "_INLINE_LIMIT", 4096)
    with pytest.raises(UsageError, match="its weights need a file of their own"):
        files.save(model_of(), "-")
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_refuses_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="does not exist; create it"):
        files.save(model_of(), tmp_path / "absent" / "m.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="a folder is in the way"):
        files.save(model_of(), tmp_path / "folder")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match="read-only"):
        files.save(model_of(), tmp_path / "m.onnx")
    assert listing(tmp_path) == {}


def test_refuses_an_initializer_without_data(tmp_path: Path) -> None:
    model = model_of()
    model.graph.initializers["w"].const_value = None
    with pytest.raises(InputError, match="'w' has no data"):
        files.save(model, tmp_path / "m.onnx")
    assert listing(tmp_path) == {}


def test_a_name_of_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"named as a folder; name a file, such as .*/new/model\.onnx"):
        files.save(model_of(), f"{tmp_path}/new/")
    assert not list(tmp_path.iterdir())
