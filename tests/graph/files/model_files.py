"""Small models and their files, for the tests of loading and saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from ffc.errors import InputError
from ffc.graph import files

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


def external(folder: Path, **changes: str) -> Path:
    """Save a model with external data, then change entries of the weight's reference."""
    files.save(model_of(), folder / "m.onnx", external=True)
    proto = onnx.load(folder / "m.onnx", load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = changes.get(entry.key, entry.value)
    return written(folder / "m.onnx", proto)
