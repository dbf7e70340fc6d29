"""Bring a model to the opset that everything else is written for."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

import ffc
from ffc import Op, constant
from ffc.settings import libraries

OPSET = 23
MIN_IR_VERSION = 10

_ONE_AXIS = 13
"""Since when Hardmax takes one axis; before, it took that and all after it as one."""
_NO_BATCH = 9
"""Since when Scan goes along an axis of all that it is given; before, along that of each row of a batch."""
_COORDINATES = 11
"""Since when Resize says how it finds coordinates; before, there was one way."""

_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


@dataclass(frozen=True)
class Opset(ffc.Pass):
    """Convert a model to opset 23, with its functions inlined; every compile begins with this.

    1. Functions of any domain but ``ffc`` are inlined: converters either drop them or break their calls.
    2. The default domain is converted to opset 23; what the converters forget of Hardmax and Resize is done here. A
       newer model is taken at its word where opset 23 knows all its operators, their attributes and inputs, and they
       prove to mean the same there; else it stays at its own, and needs an onnxruntime that knows it.
    3. Constant nodes become initializers, so that later passes meet constants in one form.

    A model that draws random numbers (live Dropout after an export in training mode) is refused.
    """

    name = "opset"
    needs = ("widen",)
    any_opset = True

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        _refuse_random(model)
        if foreign := [key for key in model.functions if key[0] != "ffc"]:
            common.InlinePass()(model)
            log.did("functions inlined", len(foreign))
        self._convert(model, log)
        constants = common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
        count = sum(node.op_type == "Constant" for node in model.graph)
        if count and constants(model).modified:
            log.did("constants lifted", count)

    def _convert(self, model: ir.Model, log: ffc.Log) -> None:
        found = model.opset_imports.get("")
        if found == OPSET:
            return
        if found is None:  # its operators are all of other domains; what passes write is of this one
            _import(model, log)
            return
        if found > OPSET:
            _take_older(model, found, log)
            return
        if found < _NO_BATCH:
            _refuse_scan(model)
        if any(key[0] == "ffc" for key in model.functions):
            raise ffc.CannotApplyError(f"the model calls ffc functions at opset {found}; they need {OPSET}")
        # Deferred: the converter takes a while to import, and most commands never convert.
        libraries.check(libraries.CONVERSION)
        from onnxscript import version_converter

        if found < _ONE_AXIS:
            _flatten_hardmax(model)
        logging.getLogger("onnxscript.version_converter").setLevel(logging.ERROR)
        try:
            version_converter.convert_version(model, OPSET, fallback=True)
        except Exception as error:  # the converters raise whatever their adapters meet
            reason = " ".join(str(error).split())[:200]
            raise ffc.CannotApplyError(f"cannot convert opset {found} to {OPSET}: {reason}") from error
        if model.opset_imports.get("") != OPSET:
            raise ffc.CannotApplyError(
                f"cannot convert opset {found} to {OPSET}: an operator has no conversion; export at opset 18 or later"
            )
        if found < _COORDINATES:
            _note_coordinates(model)
        model.ir_version = max(model.ir_version, MIN_IR_VERSION)
        log.did(f"opset {found} to {OPSET}")


def _import(model: ir.Model, log: ffc.Log) -> None:
    model.opset_imports[""] = OPSET
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)
    log.did(f"opset {OPSET} imported")


def _refuse_scan(model: ir.Model) -> None:
    """Refuse what the converter would take for the Scan of later opsets, which knows no batch."""
    scan = next((node for node in model.graph.all_nodes() if node.op_type == "Scan" and not node.domain), None)
    if scan is not None:
        raise ffc.CannotApplyError(
            f"Scan {scan.name} of opset 8 goes through each row of a batch, which no later opset can say; export at "
            f"opset {_NO_BATCH} or later"
        )


def _flatten_hardmax(model: ir.Model) -> None:
    """Write out what Hardmax meant up to opset 12, as the converter does for Softmax and LogSoftmax but not for it."""
    found = [node for node in model.graph.all_nodes() if node.op_type == "Hardmax" and not node.domain]
    for node in found:
        op, (x,), axis = Op(), node.inputs, node.attributes.get_int("axis", 1)
        result = op.Reshape(op.Hardmax(op.Flatten(x, axis=axis), axis=1), op.Shape(x))
        assert node.graph is not None
        ir.convenience.replace_nodes_and_values(node.graph, node, [node], op.nodes, node.outputs, [result])
    if found:
        common.NameFixPass()(model)


def _note_coordinates(model: ir.Model) -> None:
    """Say what Resize, once Upsample, meant up to opset 10: the converter leaves the defaults of opset 11, others."""
    for node in model.graph.all_nodes():
        if node.op_type != "Resize" or node.domain:
            continue
        scales = constant(node.inputs[2])
        smaller = scales is not None and bool(np.all(scales <= 1))
        meant = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil" if smaller else "floor"}
        node.attributes.update({name: ir.AttrString(name, value) for name, value in meant.items()})


def _take_older(model: ir.Model, found: int, log: ffc.Log) -> None:
    """Call a newer model one of opset 23, unless it uses what that lacks."""
    if newer := _newer(model):
        log.missed("the model", f"it stays at opset {found}: {newer}")
    elif log.takes(f"opset {found} to {OPSET}", "the model"):  # else it did not mean the same there
        model.opset_imports[""] = OPSET
        log.did(f"opset {found} to {OPSET}")


def _newer(model: ir.Model) -> str | None:
    """Say what a model uses that opset 23 lacks, as far as signatures tell."""
    for node in model.graph.all_nodes():
        if node.domain:
            continue
        where = f"for {node.op_type} {node.name} opset {OPSET}"
        try:
            schema = onnx.defs.get_schema(node.op_type, OPSET)
        except onnx.defs.SchemaError:
            return f"{where} has no such operator"
        odd = sorted(node.attributes.keys() - schema.attributes.keys())
        if odd or len(node.inputs) > schema.max_input or len(node.outputs) > schema.max_output:
            return f"{where} does not know its {odd[0] if odd else 'last input or output'}"
    return None


def _refuse_random(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        if node.domain:
            continue
        training = node.inputs[2] if node.op_type == "Dropout" and len(node.inputs) > 2 else None
        if training is not None:
            tensor = ir.convenience.get_const_tensor(training)
            if tensor is not None and not tensor.numpy().any():
                continue
        if node.op_type in _RANDOM or training is not None:
            raise ffc.CannotApplyError(
                f"{node.op_type} {node.name} draws random numbers; export the model in evaluation mode (model.eval())"
            )
