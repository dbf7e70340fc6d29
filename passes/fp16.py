"""The pass `fp16`: compute products and attention in half precision, and store their weights so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

import ffc
from ffc import Editor, Op, Tensor, constant
from ffc.compiler.survey import name_of
from ffc.errors import nearest
from ffc.graph.blocks.structure import ROLES, Product
from ffc.graph.blocks.tables import lookups
from ffc.graph.dialect import ops
from ffc.graph.dialect.function import Function, called
from ffc.graph.dialect.half import LARGEST
from ffc.graph.dialect.trace import Program, parameters, with_signature
from ffc.graph.execute import cuda_at_hand
from ffc.settings.wanted import AGREEMENT, COSINE

PARTS = (*ROLES, "attention", "embeddings")
"""What `skip` takes beside names."""

_ADVICE = "fp16{skip=...} leaves what it names in float32, and fp16{cosine=...} allows more"

_HALF, _SINGLE = ir.DataType.FLOAT16.value, ir.DataType.FLOAT.value


@functools.cache
def _in_half(function: Function, halved: tuple[str, ...]) -> Program:
    """Return a call of `function` between casts of some tensors and of its result; casts that meet go later."""
    tensors, attributes = parameters(function.body)

    def program(op: Op, *values: Tensor, **given: Any) -> Tensor:
        args = [op.Cast(x, to=_HALF) if name in halved else x for name, x in zip(tensors, values, strict=True)]
        return op.Cast(op.ffc.node(function.name, *args, **given), to=_SINGLE)

    return with_signature(program, tensors, attributes, f"{function.name}InHalf", f"`{function.name}` in half.")


def _product(op: Op, x: Tensor, w: Tensor) -> Tensor:
    return op.Cast(op.MatMul(op.Cast(x, to=_HALF), w), to=_SINGLE)


@dataclass(frozen=True)
class Fp16(ffc.Pass):
    """Compute in half precision what is large, and in float32 what is sensitive to range.

    1. Products with a constant weight, with their bias and activation: weights and arithmetic become half.
    2. Attention: Q·K and probabilities·V become half, with the queries scaled before the product. The mask and Softmax
       stay float32, so what a mask adds is not cut off at what half holds.
    3. Embedding tables are stored in half.
    4. Norms and the residual sums before them stay float32, and so does all else that the model computes.

    Inputs and outputs keep their types. A weight that half cannot hold stays float32 and is named; an activation that
    half cannot hold is found on the probes, where every half number is rounded as a processor with half products
    would, and named too.
    """

    name = "fp16"
    needs = ("fuse",)
    rounds = True

    skip: tuple[str, ...] = ffc.option(
        "what to leave in float32, by role (q, k, v, attn_out, ffn_in, ffn_out, head, other, attention, embeddings) or "
        "by name of a product or attention",
        default=(),
    )
    cosine: float = ffc.option(
        "least mean cosine between output vectors before and after", default=0.999, wanted=COSINE
    )
    agreement: float = ffc.option(
        "least share of rows whose largest output stays the largest", default=0.0, wanted=AGREEMENT
    )

    @property
    def contract(self) -> ffc.Budget:
        """Outputs may move within the budget of the options."""
        return ffc.Budget(self.cosine, self.agreement, advice=_ADVICE)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        products = ffc.find_blocks(model).products
        calls = [(node, function) for node in model.graph if (function := called(node)) is not None]
        attentions = [(node, half) for node, function in calls if (half := _half_attention(function)) is not None]
        self._check_names({product.name for product in products} | {name_of(node) for node, _ in attentions})
        editor, takes = Editor(model), functools.partial(self._takes, log)
        for product in products:
            name = product.name
            half = (called(product.node) or ops.Linear).rounded("half")
            if half is None:
                log.missed(f"{product.role} {name}", f"{product.node.op_type} has no form in half")
            elif takes(product.role, name, product.weight, product.bias):
                _convert_product(product, half, editor)
                log.did(product.role, where=name)
        for node, half in attentions:
            if takes("attention", name_of(node)):
                program = _in_half(half, tuple(name for name in half.tensors if name != half.mask))
                editor.splice(program, half.given(node), node.attributes, replaces=node.outputs[0])
                log.did("attention")
        _convert_tables(editor, takes, log)
        if log.count:
            _merge_casts(editor)
            if not cuda_at_hand():
                log.note("no CUDA provider here: checked on the CPU provider with every half number rounded")

    def _takes(self, log: ffc.Log, role: str, name: str, *weights: ir.Value | None) -> bool:
        """Whether the part `role` called `name`, whose constants are `weights`, becomes half; tell why it does not."""
        reason = "left in float32 as asked (skip)" if {role, name} & {*self.skip} else _unfit(weights)
        if reason:
            log.missed(f"{role} {name}", reason)
        return not reason

    def _check_names(self, names: set[str]) -> None:
        for name in self.skip:
            if name not in PARTS and name not in names:
                near = nearest(name, PARTS) if len(names) > 20 else nearest(name, {*PARTS, *names})
                raise ffc.UsageError(f"skip={name} names no part and no product or attention of this model{near}")


def _half_attention(function: Function) -> Function | None:
    """Return the function that computes in half what an attention in float32 does."""
    return function.rounded("half") if function.family == "attention" else None


def _unfit(weights: tuple[ir.Value | None, ...]) -> str:
    for value in weights:
        array = constant(value)
        if value is None or array is None:
            continue
        if array.dtype != np.float32:
            return f"its weight is {array.dtype}, not float32"
        largest = float(np.abs(array).max(initial=0))
        if not largest <= LARGEST:
            return f"left in float32: its weight {value.name} holds {largest:g}, and half ends at {LARGEST:g}"
    return ""


def _half(array: np.ndarray | None) -> np.ndarray:
    assert array is not None
    return np.ascontiguousarray(array, dtype=np.float16)


def _convert_product(product: Product, half: Function, editor: Editor) -> None:
    weight, bias = _half(product.matrix()), product.vector()
    if bias is None:
        editor.splice(_product, {"x": product.x, "w": weight}, replaces=product.out)
        return
    given = {half.weight: weight, half.bias: _half(bias)}
    inputs = {name: given.get(name, product.x) for name in half.tensors}
    program = _in_half(half, tuple(name for name in half.tensors if name not in given))
    attributes = product.node.attributes if called(product.node) else {}
    editor.splice(program, inputs, attributes, replaces=product.out)


def _convert_tables(editor: Editor, takes: Callable[..., bool], log: ffc.Log) -> None:
    for node, half, given in lookups(editor.graph, "half"):
        if takes("embeddings", name_of(node), *(given[table] for table in half.tables)):
            stored = {table: _half(constant(given[table])) for table in half.tables}
            editor.splice(half.call, {**given, **stored}, node.attributes, replaces=node.outputs[0])
            log.did("embedding tables", len(stored))


def _merge_casts(editor: Editor) -> None:
    """Let each value be cast to half once, and let half flow from call to call without a detour through float32."""
    halves: dict[ir.Value, ir.Value] = {}
    for node in [node for node in editor.graph if node.op_type == "Cast" and node.attributes["to"].value == _HALF]:
        (source,) = node.inputs
        assert source is not None
        back = source.producer()
        origin = back.inputs[0] if back is not None and back.op_type == "Cast" else None
        if origin is not None and editor.shapes.dtype(origin) == ir.DataType.FLOAT16:
            editor.replace(node.outputs[0], origin)
        elif source in halves:
            editor.replace(node.outputs[0], halves[source])
        else:
            halves[source] = node.outputs[0]
