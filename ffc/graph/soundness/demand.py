"""What running a model would take, told before it is run: memory of the values it computes, and arithmetic."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

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
    shapes do not tell (a loop, a size that is computed) is met by the limits on seconds and memory.

    Args:
        model: Its nodes topologically sorted, its input shapes as the file says.
        path: Its file, for messages.

    Raises:
        InputError: If a value, all of them together, or the products take more than their limit.
    """
    most = limits.active()
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    made: list[tuple[str, Fact]] = []  # where values come from, and what is known of them
    counter = ProductCounter(model)

    def visit(site: Site, outputs: Sequence[Fact]) -> None:
        counter.visit(site, outputs)
        made.extend((_label(site), fact) for fact in outputs)

    shapes = infer(model, visit)
    given = [(f"input '{value.name}'", shapes.fact(value)) for value in model.graph.inputs]
    sizes = defaultdict(lambda: 1, input_sizes(model.graph.inputs, shapes, BATCH, LENGTH))
    total = 0
    for what, fact in [*given, *made]:
        size = _bytes(fact, sizes)
        total += size
        if size > most.value + weights:
            raise _too_much(path, f"{what} has {size} bytes", "value")
    if total > most.values + 4 * weights:
        raise _too_much(path, f"all that it computes has {total} bytes", "values")
    macs = sum(count or 0 for _, count in counter.counts(shapes, BATCH, LENGTH))
    if macs > most.macs:
        raise _too_much(path, f"its products take {macs} multiply-accumulates", "macs")


def _too_much(path: Path, found: str, limit: str) -> InputError:
    over = f"over the limit '{limit}' of {getattr(limits.active(), limit)}"
    return InputError(
        f"cannot load {path}: {found} on a probe, {over}; no encoder needs that, raise the limit if this one does"
    )


def _bytes(fact: Fact, sizes: Mapping[str, int]) -> int:
    """Return the bytes of a value, 0 where its rank or type is not known; a size that is not known counts as 1."""
    if fact.shape is None or fact.dtype in (None, ir.DataType.STRING, ir.DataType.UNDEFINED):
        return 0
    return max(0, math.prod(_size(dim, sizes) for dim in fact.shape)) * fact.dtype.bitwidth // 8


def _size(dim: Dim, sizes: Mapping[str, int]) -> int:
    try:
        return evaluate(dim, sizes)
    except ODDITIES:
        return 1


def _label(site: Site) -> str:
    return f"{site.root.op_type} '{site.root.name or site.root.outputs[0].name}'"
