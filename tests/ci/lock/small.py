"""A small encoder as a file, and what may become of it: trained again, changed in one place, or in its interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from ffc.graph import files
from tests import graphs

Edit = Callable[[ir.Model], None]


def save(path: Path, edit: Edit | None = None, *, layers: int = 1, seed: int = 0) -> Path:
    """Write an encoder of `layers` layers, edited if wanted, and return its path."""
    model = graphs.encoder(layers=layers, seed=seed)
    if edit:
        edit(model)
    files.save(model, path)
    return path


def scale_weights(factor: float) -> Edit:
    """Return what multiplies the weights of the first feed-forward network by `factor`."""

    def edit(model: ir.Model) -> None:
        value = model.graph.initializers["layer0.ffn_in.weight"]
        assert value.const_value is not None
        value.const_value = ir.Tensor((value.const_value.numpy() * factor).astype("float32"), name=value.name)

    return edit


def nodes(model: ir.Model, op_type: str) -> list[ir.Node]:
    """Return all nodes of an operator."""
    return [node for node in model.graph if node.op_type == op_type]


def change_epsilon(model: ir.Model, place: int = 1, epsilon: float = 1e-3) -> None:
    """Give one of the norms another epsilon."""
    norm = nodes(model, "LayerNormalization")[place]
    norm.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon)


def insert(op_type: str, place: int = 0) -> Edit:
    """Return what puts a node of one input behind one of the Gelus."""

    def edit(model: ir.Model) -> None:
        gelu = nodes(model, "Gelu")[place]
        new = ir.node(op_type, [gelu.outputs[0]], name=f"new_{op_type}")
        new.outputs[0].name = f"new_{op_type}_out"
        new.outputs[0].type, new.outputs[0].shape = gelu.outputs[0].type, gelu.outputs[0].shape
        gelu.outputs[0].replace_all_uses_with(new.outputs[0])
        new.replace_input_with(0, gelu.outputs[0])
        model.graph.insert_after(gelu, new)

    return edit


def rename_output(model: ir.Model) -> None:
    """Give the first output another name."""
    model.graph.outputs[0].name = "hidden"
