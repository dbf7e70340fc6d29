"""What running a model would take, told before it is run: memory of the values it computes, and arithmetic."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import onnx_ir as ir

from ffc import limits
from ffc.errors import InputError
from ffc.graph.cost import ProductCounter
from ffc.graph.shapes.dim import Dim, evaluate
from ffc.graph.shapes.inference import infer
from ffc.graph.shapes.positions import input_sizes
from ffc.graph.shapes.rule import ODDITIES, Fact, Site

__all__ = ["check_demand"]

BATCH, LENGTH = 3, 33
"""At least as large as every probe (`ffc.compiler.proof.probes`)."""


def check_demand(model: ir.Model, path: Path) -> None:
    """Check what a model computes on a probe, as far as shapes tell.

    A chain of 35 doubling Concats fills a terabyte, and onnxruntime starts on it as soon as it loads the model. What
    shapes do not tell (a loop, a size that is computed) is met by the limits on seconds and memory. Nodes are
    topologically sorted, and shapes of inputs are as the file says.

    Raises:
        InputError: If a value, all of them together, or the products take more than their limit.
    """
    most = limits.active()
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    made: list[tuple[str, Fact]] = []
    counter = ProductCounter(model)

    def refuse(found: str) -> NoReturn:
        raise InputError(f"cannot load {path}: {found}; no encoder needs that, raise the limit if this one does")

    def visit(site: Site, outputs: Sequence[Fact]) -> None:
        counter.visit(site, outputs)
        made.extend((_label(site), fact) for fact in outputs)

    shapes = infer(model, visit)
    given = [(f"input '{value.name}'", shapes.fact(value)) for value in model.graph.inputs]
    sizes = defaultdict(lambda: 1, input_sizes(model.graph.inputs, shapes, BATCH, LENGTH))
    total = 0
    for what, fact in given + made:
        size = _bytes(fact, sizes)
        total += size
        if size > most.value + weights:
            refuse(f"{what} has {size} bytes on a probe, over the limit 'value' of {most.value}")
    if total > most.values + 4 * weights:
        refuse(f"all that it computes has {total} bytes on a probe, over the limit 'values' of {most.values}")
    macs = sum(count or 0 for _, count in counter.counts(shapes, BATCH, LENGTH))
    if macs > most.macs:
        refuse(f"its products take {macs} multiply-accumulates on a probe, over the limit 'macs' of {most.macs}")


def _bytes(fact: Fact, sizes: defaultdict[str, int]) -> int:
    """Return the bytes of a value, 0 where its rank or type is not known; a size that is not known counts as 1."""
    if fact.shape is None or fact.dtype in (None, ir.DataType.STRING, ir.DataType.UNDEFINED):
        return 0
    return max(0, math.prod(_size(dim, sizes) for dim in fact.shape)) * fact.dtype.bitwidth // 8


def _size(dim: Dim, sizes: defaultdict[str, int]) -> int:
    try:
        return evaluate(dim, sizes)
    except ODDITIES:
        return 1


def _label(site: Site) -> str:
    return f"{site.root.op_type} '{site.root.name or site.root.outputs[0].name}'"
