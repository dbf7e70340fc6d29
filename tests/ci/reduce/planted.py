"""A fault to find: a pass that takes some biases for zero, and an encoder with one bias that it is wrong about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from tests.graphs import UNITS, encoder

PASS = "drop-bias"

SOURCE = '''
"""Passes of one's own, which are wrong."""

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

import ffc


@dataclass(frozen=True)
class DropBias(ffc.Pass):
    """Drop biases that are zero; of which it reads the first number alone."""

    name = "drop-bias"
    needs = ("fuse",)

    shout: bool = ffc.option("an option that does nothing", default=False)

    def run(self, model, log):
        for node in model.graph:
            if ffc.called(node) is ffc.ops.LinearGelu:
                bias = ffc.constant(node.inputs[2])
                if bias is not None and bias[0] == 0:
                    node.replace_input_with(2, ffc.Editor(model).constant(0 * bias, "nothing"))
                    log.did("bias")


@dataclass(frozen=True)
class Crash(ffc.Pass):
    """Read where there is nothing, as native code does, if there is a GELU."""

    name = "crash"

    def run(self, model, log):
        if any(node.op_type == "Gelu" for node in model.graph):
            ctypes.string_at(0)


@dataclass(frozen=True)
class Hang(ffc.Pass):
    """Never come to an end, if there is a GELU."""

    name = "hang"

    def run(self, model, log):
        while any(node.op_type == "Gelu" for node in model.graph):
            time.sleep(1)


@dataclass(frozen=True)
class Approximate(ffc.Pass):
    """Take the tanh form of GELU."""

    name = "approximate"
    contract = ffc.Budget(0.5)

    def run(self, model, log):
        for node in model.graph:
            if node.op_type == "Gelu":
                node.attributes["approximate"] = ir.AttrString("approximate", "tanh")
                log.did("gelu")


@dataclass(frozen=True)
class NoTanh(ffc.Pass):
    """Raise ValueError at the tanh form of GELU."""

    name = "no-tanh"

    def run(self, model, log):
        for node in model.graph:
            if node.op_type == "Gelu" and node.attributes.get_string("approximate", "none") == "tanh":
                raise ValueError("tanh")


@dataclass(frozen=True)
class Follow(ffc.Pass):
    """Raise what a file says."""

    name = "follow"

    plan: Path = ffc.option("the file")

    def run(self, model, log):
        raise ValueError(self.plan.read_text())


@dataclass(frozen=True)
class Stumble(ffc.Pass):
    """Raise KeyError at a Softmax."""

    name = "stumble"

    def run(self, model, log):
        for node in model.graph:
            {"Softmax": {}}.get(node.op_type, {"axis": 0})["axis"]
'''


def plugin(folder: Path) -> str:
    """Write the file of passes and return its path."""
    path = folder / "mine.py"
    path.write_text(SOURCE, encoding="utf-8")
    return str(path)


def wrong_about(layer: int = 1, layers: int = 2) -> ir.Model:
    """Return an encoder in which the bias of one layer begins with 0 and goes on otherwise."""
    model = encoder(layers=layers)
    for index in range(layers):
        _set_bias(model, f"layer{index}.ffn_in.bias", 0.5 if index == layer else 0)
    return model


def _set_bias(model: ir.Model, name: str, rest: float) -> None:
    bias = np.full(UNITS, rest, np.float32)
    bias[0] = 0
    model.graph.initializers[name].const_value = ir.Tensor(bias, name=name)


def gelu() -> ir.Model:
    """Return a model of one GELU and a node before it."""
    return ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 23]> m (float[batch, 3] x) => (float[batch, 3] y) { r = Relu(x) y = Gelu(r) }'
    )
