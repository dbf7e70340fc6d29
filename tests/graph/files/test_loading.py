"""Model files: what loads, what is refused with which words, and that saving is atomic and repeatable."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from ffc.errors import InputError, UsageError
from ffc.graph import files
from ffc.graph.files import publish
from ffc.graph.text import text

SOURCE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 32] x) => (float[n, 32] y) {
    h = MatMul(x, w)
    r = Relu(h)
    y = Add(r, b)
}
"""


def proto_of(scale: float = 1.0) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(SOURCE)
    weight = np.arange(1024, dtype=np.float32).reshape(32, 32) * np.float32(scale)
    bias = np.arange(32, dtype=np.float32)
    proto.graph.initializer.extend([numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")])
    return proto


def model_of(scale: float = 1.0) -> ir.Model:
    return ir.from_proto(proto_of(scale=scale))


def written(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def weight(model: ir.Model) -> np.ndarray:
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    return tensor.numpy()


def listing(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def data_file(folder: Path) -> Path:
    """Return the one external data file in a folder."""
    (found,) = folder.glob("m.onnx.*.data")
    return found


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        files.load(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


# Loading


def test_loads_what_was_saved(tmp_path: Path) -> None:
    files.save(model_of(), tmp_path / "m.onnx")
    assert text(files.load(tmp_path / "m.onnx")) == text(model_of())
    assert list(listing(tmp_path)) == ["m.onnx"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is no model\n" * 9, "not an ONNX model"),
        (b"\x00" * 100, "not an ONNX model"),
        (b"{}", "not an ONNX model"),
        (onnx.ModelProto(ir_version=10).SerializeToString(), "without a graph"),
        (proto_of().graph.initializer[0].SerializeToString(), "ONNX model"),
    ],
)
def test_refuses_what_is_no_model(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    assert reason in refused(tmp_path / "m.onnx")


def test_refuses_random_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for high in (128, 256):
        for length in range(1, 200):
            (tmp_path / "m.onnx").write_bytes(rng.integers(0, high, length, dtype=np.uint8).tobytes())
            refused(tmp_path / "m.onnx")


def test_refuses_a_model_cut_anywhere(tmp_path: Path) -> None:
    content = proto_of().SerializeToString()
    for end in range(1, len(content), 7):
        (tmp_path / "m.onnx").write_bytes(content[:end])
        refused(tmp_path / "m.onnx")


def test_refuses_missing_files_and_folders(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.onnx")
    assert "folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "regular file" in refused(tmp_path / "pipe.onnx")


# External data


def external(folder: Path, **changes: str) -> Path:
    """Save a model with external data, then change entries of the weight's reference."""
    files.save(model_of(), folder / "m.onnx", external=True)
    proto = onnx.load(folder / "m.onnx", load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = changes.get(entry.key, entry.value)
    return written(folder / "m.onnx", proto)


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
    monkeypatch.setattr(files, "_INLINE_LIMIT", 4096)
    files.save(model_of(), tmp_path / "m.onnx")
    assert sorted(listing(tmp_path)) == ["m.onnx", data_file(tmp_path).name]
    with pytest.raises(UsageError, match="do not fit"):
        files.save(model_of(), tmp_path / "n.onnx", external=False)
    assert not (tmp_path / "n.onnx").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"location": "absent.data"}, "missing"),
        ({"location": "../soft.data"}, "outside"),
        ({"location": "/etc/hostname"}, "outside"),
        ({"location": "link.data"}, "outside"),
        ({"location": "hard.data"}, "hard link"),
        ({"location": "pipe.data"}, "no regular file"),
        ({"location": "n" * 300}, "cannot be read"),
        ({"location": "."}, "no regular file"),
        ({"location": ""}, "outside"),
        ({"offset": "-1"}, "does not lie within"),
        ({"offset": "64"}, "does not lie within"),
        ({"length": "12"}, "does not lie within"),
        ({"length": str(2**62)}, "does not lie within"),
        ({"length": "9" * 400}, "does not lie within"),
        ({"offset": "x"}, "no number"),
    ],
)
def test_refuses_unsafe_external_data(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "soft.data").write_bytes(bytes(4096))
    (folder / "link.data").symlink_to(tmp_path / "soft.data")
    os.mkfifo(folder / "pipe.data")
    (folder / "soft.data").write_bytes(bytes(4096))
    (folder / "hard.data").hardlink_to(folder / "soft.data")
    assert reason in refused(external(folder, **changes))


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


def hub_cache(folder: Path) -> Path:
    """Lay a model with external data out as the cache of the Hugging Face hub does: links to files named by hash."""
    files.save(model_of(), folder / "m.onnx", external=True)
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, name in enumerate(["m.onnx", data_file(folder).name]):
        (folder / name).rename(blobs / f"{number}")
        (snapshot / name).symlink_to(Path("..") / ".." / "blobs" / f"{number}")
    return snapshot / "m.onnx"


def test_loads_from_the_cache_of_the_hub(tmp_path: Path) -> None:
    path = hub_cache(tmp_path)
    np.testing.assert_array_equal(weight(files.load(path)), weight(model_of()))
    assert files.size(path) == sum(len(content) for content in listing(tmp_path / "blobs").values())


def test_a_model_that_is_no_link_may_not_link_its_data_elsewhere(tmp_path: Path) -> None:
    path = hub_cache(tmp_path)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert "outside" in refused(path)


# Saving


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
    with publish.Staging(tmp_path) as staging:
        temporary = staging.write([b"being written"])
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


# Size and digest


def test_size_and_digest_cover_external_data(tmp_path: Path) -> None:
    files.save(model_of(), tmp_path / "m.onnx", external=True)
    assert files.size(tmp_path / "m.onnx") == sum(len(content) for content in listing(tmp_path).values())
    before = files.digest(tmp_path / "m.onnx")
    assert len(before) == 64 and before == files.digest(tmp_path / "m.onnx")
    data_file(tmp_path).write_bytes(bytes(4096))
    assert files.digest(tmp_path / "m.onnx") != before


def test_digest_of_one_file_is_its_sha256(tmp_path: Path) -> None:
    files.save(model_of(), tmp_path / "m.onnx")
    assert files.digest(tmp_path / "m.onnx") == hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()
