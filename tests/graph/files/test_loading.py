"""What is sound is loaded, what is not is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from ffc.graph import files
from ffc.graph.text import text
from tests.graph.files.model_files import data_file, external, listing, model_of, proto_of, refused, weight


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
    assert "it is a folder; name an .onnx file" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert f"it is a folder; `ffc export {tmp_path} -o model.onnx` makes a model of it" in refused(tmp_path)
    (tmp_path / "model.onnx").touch()
    assert f"it is a folder; name the .onnx file in it, {tmp_path / 'model.onnx'}" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "regular file" in refused(tmp_path / "pipe.onnx")


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


def with_default(folder: Path, location: str) -> Path:
    """Write a model that calls a function with an attribute whose default lies in external data."""
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20, "f" : 1]> g (float[n] x) => (float[n] y) { y = f.F(x) }
        <domain: "f", opset_import: ["" : 20]> F <d> (x) => (y) { c = Constant<value: tensor = @d>() y = Add(x, c) }"""
    )
    tensor = onnx.TensorProto(data_type=onnx.TensorProto.FLOAT, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    del proto.functions[0].attribute[:]
    proto.functions[0].attribute_proto.append(onnx.helper.make_attribute("d", tensor))
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


def test_a_default_reads_its_data_in_the_folder_of_the_model_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "model"
    elsewhere.mkdir()
    folder.mkdir()
    (elsewhere / "d.data").write_bytes(np.full(4, 7, np.float32).tobytes())
    monkeypatch.chdir(elsewhere)
    assert "is missing" in refused(with_default(folder, "d.data"))
    assert "outside" in refused(with_default(folder, str(elsewhere / "d.data")))
    (folder / "d.data").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    files.save(files.load(with_default(folder, "d.data")), tmp_path / "whole.onnx")
    (saved,) = onnx.load(tmp_path / "whole.onnx", load_external_data=False).functions
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(saved.attribute_proto[0].t), np.arange(4))


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
