"""Products of integers that the graph itself scales back: MatMulInteger or ConvInteger, a cast, and factors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ffc import Editor, Log, constant
from ffc.compiler.survey import name_of
from ffc.graph.dialect.edit import only_consumer, producer
from ffc.graph.shapes.positions import moves

__all__ = ["read_products"]

_FLOAT_OF = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}


def read_products(editor: Editor, log: Log) -> None:
    """Write products of integers, with what scales them back, as products of the numbers that they stand for."""
    for node in list(editor.graph):
        if node.domain or node.op_type not in _FLOAT_OF:
            continue
        why = _read(node, editor)
        if why:
            log.missed(name_of(node), why)
        else:
            log.did(node.op_type)


def _read(node: ir.Node, editor: Editor) -> str | None:
    a, b, a_zero, b_zero = [*node.inputs, None, None][:4]
    a_scale, b_scale = _scale(a, a_zero), _scale(b, b_zero)
    if a_scale is None:
        return "what it multiplies is not quantised in the graph"
    wanted = [a_scale] if constant(b) is not None else [a_scale, b_scale]
    result, factors = _scaled(node.outputs[0], wanted)
    if result is None:
        return "its result is not multiplied by the scales of what it multiplies"
    op = editor.at(result.producer() or node, f"{result.name}.exact")
    x = op.DequantizeLinear(a, a_scale, a_zero)
    stored = constant(b)
    weight = op.DequantizeLinear(b, b_scale, b_zero) if stored is None else _weight(node, stored, b_zero, factors)
    if weight is None:
        return "its scales are not one for all or one for each column"
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    editor.replace(result, op.node(_FLOAT_OF[node.op_type], x, weight, **attributes), fresh=True)
    return None


def _scale(value: ir.Value | None, zero: ir.Value | None) -> ir.Value | None:
    """Return the scale of a value that the graph quantises with `zero` as its zero point, None where it does not."""
    while moves(node := producer(value)):
        assert node is not None
        value = node.inputs[0]
    if node is None or node.domain:
        return None
    if node.op_type == "DynamicQuantizeLinear" and zero is node.outputs[2]:
        return node.outputs[1]
    if node.op_type == "QuantizeLinear" and zero is [*node.inputs, None][2]:
        return node.inputs[1]
    return None


def _scaled(out: ir.Value, wanted: Sequence[ir.Value | None]) -> tuple[ir.Value | None, list[ir.Value]]:
    """Return what comes of sums of products once they are multiplied by all of `wanted`, and the constants beside.

    A constant factor that follows is taken along where none has come before, since it is the scale of the weight.
    """
    cast = only_consumer(out)
    if cast is None or cast.op_type != "Cast" or cast.attributes["to"].value != ir.DataType.FLOAT.value:
        return None, []
    value, found, others = cast.outputs[0], list[ir.Value](), list[ir.Value]()
    while (node := only_consumer(value)) is not None and node.op_type == "Mul" and not node.domain:
        beside = [each for each in node.inputs if each is not value]
        if not beside:  # a square is no scale
            break
        factors = _factors(beside[0])
        constants = [each for each in factors if constant(each) is not None]
        if len(found) == len(wanted) and (others or len(constants) < len(factors)):
            break
        if any(each not in wanted for each in factors if each not in constants):
            break
        found += [each for each in factors if each not in constants]
        others += constants
        value = node.outputs[0]
    return (value if set(found) == set(wanted) and len(found) == len(wanted) else None), others


def _factors(value: ir.Value | None) -> list[ir.Value]:
    node = producer(value)
    if node is not None and node.op_type == "Mul" and not node.domain:
        return [each for source in node.inputs for each in _factors(source)]
    return [] if value is None else [value]


def _weight(
    node: ir.Node, stored: np.ndarray, zero: ir.Value | None, factors: Sequence[ir.Value]
) -> np.ndarray | None:
    """Return the numbers that a stored weight stands for, None where a scale is neither one nor one for each column."""
    conv = node.op_type == "ConvInteger"
    columns = stored.shape[0 if conv else -1]
    across = (-1,) + (1,) * (stored.ndim - 1) if conv else (-1,)
    offset = np.zeros(1, np.int8) if zero is None else constant(zero)
    if offset is None or offset.size not in (1, columns):
        return None
    scale = np.ones(1, np.float32)
    for each in map(constant, factors):
        assert each is not None
        place = 1 if conv else each.ndim - 1
        one_a_column = each.size == columns and each.ndim > place and each.shape[place] == columns
        if each.dtype != np.float32 or not (each.size == 1 or one_a_column):
            return None
        scale = scale * each.reshape(-1)
    return np.asarray((stored.astype(np.float32) - offset.astype(np.float32).reshape(across)) * scale.reshape(across))
