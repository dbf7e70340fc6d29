"""What happens to a model after every pass: dead code out, order, names, functions, checker."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from ffc.errors import CannotApplyError
from ffc.graph.dialect.function import register
from ffc.graph.execute import light_proto
from ffc.graph.shapes.inference import infer

__all__ = ["tidy"]


def tidy(model: ir.Model) -> ir.Model:
    """Bring `model` into order, in place, and return it.

    Raises:
        CannotApplyError: If the checker refuses it.
    """
    common.RemoveUnusedNodesPass()(model)
    model.graph.sort()
    common.NameFixPass()(model)
    register(model)
    _give_outputs_shapes(model)
    _check(model)
    return model


def _give_outputs_shapes(model: ir.Model) -> None:
    """Write down the shapes of outputs that have none; onnxruntime does without, the checker does not."""
    if bare := [value for value in model.graph.outputs if value.shape is None]:
        shapes = infer(model)
        for value in bare:
            value.shape = shapes.noted(value)


def _check(model: ir.Model) -> None:
    """Run onnx's checker with the weights left out: they are arrays already, and protobuf ends at 2 GB."""
    proto = onnx.ModelProto.FromString(light_proto(model)[0])
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            # An empty tensor of the same type stands in; the checker looks at consistency, not at contents.
            tensor.dims[:] = [0]
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise CannotApplyError(f"the result is not valid ONNX: {' '.join(str(error).split())[:300]}") from error
