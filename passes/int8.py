"""Store the weights of products as int8 and quantise their input on the fly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

import ffc
from ffc import Editor, constant
from ffc.errors import nearest
from ffc.graph.blocks import ROLES, Product

ACTIVATIONS = {"LinearRelu": "Relu", "LinearGelu": "Gelu"}


@dataclass(frozen=True)
class Int8(ffc.Pass):
    """Turn products with a constant weight into int8 products.

    1. Weights are stored as int8, symmetric, with one scale per output column.
    2. Their input is quantised when the model runs, with one scale for the whole tensor (``DynamicQuantizeLinear``).
       For the roles in `rows` each row (token) is divided by its largest magnitude first: a few operators more, and
       far more accurate where tokens differ as much as they do before the second product of a feed-forward network.
    3. Products of two activations, Q·K and probabilities·V, stay in fp32, and so do norms and activations.
    4. `embeddings` stores embedding tables as int8 too, with one scale per row.

    Works on fused and on plain products. The report says which products were taken and which were not, and why.
    Outputs move; the budget says by how much they may.
    """

    name = "int8"
    needs = ("opset",)

    skip: tuple[str, ...] = ffc.option(
        "products to leave in fp32, by role (q, k, v, attn_out, ffn_in, ffn_out, head, other) or by name", default=()
    )
    rows: tuple[str, ...] = ffc.option(
        "roles whose input is scaled row by row before it is quantised", default=("ffn_out",)
    )
    embeddings: bool = ffc.option("store embedding tables as int8 too", default=False)
    cosine: float = ffc.option("least mean cosine between output vectors before and after", default=0.95)
    agreement: float = ffc.option("least share of rows whose largest output stays the largest", default=0.0)

    @property
    def contract(self) -> ffc.Budget:
        """Outputs may move within the budget of the options."""
        return ffc.Budget(self.cosine, self.agreement)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        blocks = ffc.find_blocks(model)
        self._check_names(blocks.products)
        editor = Editor(model)
        for product in blocks.products:
            reason = self._reason_to_leave(product)
            if reason:
                log.missed(f"{product.role} {product.name}", reason)
                continue
            _quantise(product, editor, by_row=product.role in self.rows)
            log.did(product.role, where=product.name)
        if self.embeddings:
            _quantise_embeddings(editor, log)
        attentions = sum(layer.attention is not None for layer in blocks.layers)
        if attentions:
            log.note(f"Q·K and probabilities·V of {attentions} attentions stay fp32: products of two activations")

    def _check_names(self, products: tuple[Product, ...]) -> None:
        for role in self.rows:
            if role not in ROLES:
                raise ffc.UsageError(f"rows={role} names no role{nearest(role, ROLES)}")
        known = {product.name for product in products}
        for name in self.skip:
            if name not in ROLES and name not in known:
                near = nearest(name, ROLES) if len(known) > 20 else nearest(name, {*ROLES, *known})
                raise ffc.UsageError(f"skip={name} names no role and no product of this model{near}")

    def _reason_to_leave(self, product: Product) -> str:
        if product.role in self.skip or product.name in self.skip:
            return "left in fp32 as asked (skip)"
        weight = constant(product.weight)
        assert weight is not None
        if weight.dtype != np.float32:
            return f"its weight is {weight.dtype}, not float32"
        if not np.isfinite(weight).all():
            return "its weight is not finite"
        return ""


def quantise_columns(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantise `weight` symmetrically to int8.

    Args:
        weight: float32 matrix.
        axis: The axis that a scale spans; the other one has a scale each.

    Returns:
        int8 of the same shape, and float32 scales with `axis` kept as 1.
    """
    scale = np.abs(weight).max(axis=axis, keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def _quantise(product: Product, editor: Editor, *, by_row: bool) -> None:
    weight, scale = quantise_columns(np.ascontiguousarray(product.matrix()), axis=0)
    bias = product.vector()
    bias = np.zeros(weight.shape[1], np.float32) if bias is None else np.broadcast_to(bias, weight.shape[1:])
    fused = product.node if product.node.domain == "ffc" else None
    activation = "" if fused is None else ACTIVATIONS.get(fused.op_type, "")
    function = f"LinearInt8{'Rows' if by_row else ''}{activation}"
    attributes = {} if fused is None else fused.attributes
    editor.call(function, [product.x, weight, scale.reshape(-1), bias], attributes, replaces=product.out, rule="int8")


def _quantise_embeddings(editor: Editor, log: ffc.Log) -> None:
    for node in list(editor.graph):
        if ffc.ops.is_call(node, "Embed"):
            ids, tables, parameters = node.inputs[:3], node.inputs[3:6], node.inputs[6:]
            stored = [part for table in tables for part in _rows(table)]
            args = [*ids, *stored, *parameters]
            editor.call("EmbedInt8", args, node.attributes, replaces=node.outputs[0], rule="int8")
            log.did("embedding tables", len(tables))
        elif node.op_type == "Gather" and not node.domain and _is_table(node):
            args = [*_rows(node.inputs[0]), node.inputs[1]]
            editor.call("GatherInt8", args, replaces=node.outputs[0], rule="int8")
            log.did("embedding tables")


def _is_table(node: ir.Node) -> bool:
    table, axis = constant(node.inputs[0]), node.attributes.get("axis")
    along_rows = axis is None or axis.value == 0
    if not along_rows or table is None or table.dtype != np.float32:
        return False
    return table.ndim == 2 and table.shape[1] > 1  # one number a row is the scale of a table that is int8 already


def _rows(table: ir.Value | None) -> tuple[np.ndarray, np.ndarray]:
    array = constant(table)
    assert array is not None
    return quantise_columns(array, axis=1)
