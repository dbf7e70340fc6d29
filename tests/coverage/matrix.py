"""The matrix of exporters and encoders: what is checked of one export."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

import ffc
from ffc.compiler.reports.report import Step
from ffc.graph.blocks.finder import find
from ffc.graph.blocks.structure import Blocks, Product
from ffc.pruning import Plan, make_plan
from ffc.settings.amount import Amount
from tests import encoders
from tests.graphs import Stock, count, difference, feeds, masks

KINDS: tuple[encoders.Kind, ...] = typing.get_args(encoders.Kind)
WAYS: tuple[encoders.Way, ...] = typing.get_args(encoders.Way)
LAYERS = 2
LENGTHS = (2, 7, 33)
BATCHES = (1, 3)
HEADING = ("encoder", "exporter", "end", "found", "fused", "equal", "pruned", "int8", "fp16")


@dataclass(frozen=True)
class Cell:
    """One export: which encoder, how it was written, and whether with a classification head."""

    kind: encoders.Kind
    way: encoders.Way
    head: bool

    @property
    def name(self) -> str:
        """What a table calls it."""
        return f"{self.kind}, {self.way}, {'head' if self.head else 'bare'}"

    @property
    def types(self) -> bool:
        """Whether it takes token types."""
        return "token_type_ids" in encoders.INPUTS[self.kind]

    @property
    def products(self) -> int:
        """How many products with a constant weight it has: six a layer, ELECTRA's projection, and two of the head."""
        return 6 * LAYERS + (self.kind == "electra") + 2 * self.head

    @property
    def gelus(self) -> int:
        """How many GELUs it has: one a layer, and one in the head of ELECTRA."""
        return LAYERS + (self.kind == "electra" and self.head)


def cells() -> Iterator[Cell]:
    """Yield all fifty."""
    for head in (False, True):
        for kind in KINDS:
            for way in WAYS:
                yield Cell(kind, way, head)


def found(cell: Cell, path: Path) -> str:
    """Check that every block is found in the file as it came."""
    blocks = find(ffc.load(path))
    assert not blocks.unmatched, blocks.unmatched
    assert len(blocks.layers) == LAYERS
    for layer in blocks.layers:
        assert layer.cuttable is not None and layer.ffn is not None
        assert (layer.cuttable.heads, layer.ffn.units) == (encoders.HEADS, encoders.FFN)
        assert [product.role for product in layer.products()] == ["q", "k", "v", "attn_out", "ffn_in", "ffn_out"]
    assert len(blocks.products) == cell.products
    assert len(blocks.head) == 2 * cell.head
    return f"{2 * LAYERS}/{2 * LAYERS}"


def fused(cell: Cell, path: Path) -> tuple[str, str]:
    """Check that every block is fused, and that the result computes the same on every mask, in onnxruntime alone."""
    result = ffc.compile(path, "fuse")
    changes = step(result, "fuse").changes
    assert changes["attention"] == LAYERS
    assert changes["norm"] == 2 * LAYERS + 1
    assert changes["linear-gelu"] == cell.gelus
    assert changes["linear"] == cell.products
    assert count(result.model, "Attention") == LAYERS
    assert count(result.model, "Softmax", "Erf", "Tanh", "LayerNormalization", "IsNaN", "Gemm") == int(
        cell.head and cell.kind in ("bert", "roberta", "mpnet")  # the Tanh of their heads
    )
    worst = apart(cell, path, result.model)
    assert worst <= 1e-4
    return f"{changes['attention']}/{LAYERS}", f"{worst:.0e}"


def pruned(cell: Cell, path: Path, folder: Path) -> tuple[str, str]:
    """Check that cutting evenly, then int8, and cutting unevenly give what the masked model gives."""
    even = make_plan(path, Amount(heads=0.5, ffn=0.3), by="norm")
    plans = {"even": even, "uneven": uneven(even)}
    found = {}
    for name, plan in plans.items():
        file = folder / f"{name}.json"
        plan.save(file)
        passes = f"prune{{plan={file}}},fuse" + (",int8" if name == "even" else "")
        found[name] = ffc.compile(path, passes)
        proved = step(found[name], "prune")
        heads = sum(layer.of_heads - len(layer.heads) for layer in plan.layers if layer.heads and layer.of_heads)
        units = sum(layer.of_units - len(layer.units) for layer in plan.layers if layer.units and layer.of_units)
        assert proved.changes == {"heads": heads, "units": units}
        assert proved.verdict is not None and proved.verdict.difference < 1e-5
    worst = apart(cell, masked(path, plans["uneven"]), found["uneven"].model)
    assert worst <= 1e-4
    quantised = step(found["even"], "int8")
    assert quantised.verdict is not None
    assert quantised.changes
    assert count(found["even"].model, "DynamicQuantizeLinear") > 0
    least = alike(cell, masked(path, plans["even"]), found["even"].model)
    assert least > 0.97
    return f"{worst:.0e}", f"{quantised.verdict.cosine:.4f}"


def halved(path: Path) -> str:
    """Check that half precision stays within its budget."""
    verdict = step(ffc.compile(path, "fuse,fp16"), "fp16").verdict
    assert verdict is not None
    return f"{verdict.cosine:.6f}"


def step(result: ffc.Result, name: str) -> Step:
    """Return what one pass did."""
    return next(item for item in result.report.steps if item.text.split("{")[0] == name)


def uneven(plan: Plan) -> Plan:
    """Return a plan that keeps other heads and units, and other numbers of them, in each layer."""
    layers = [
        layer.model_copy(
            update={
                "heads": None if layer.heads is None else kept(layer.of_heads, index),
                "units": None if layer.units is None else tuple(range(index, layer.of_units or 0, 3 + index)),
            }
        )
        for index, layer in enumerate(plan.layers)
    ]
    return Plan(layers=tuple(layers))


def kept(heads: int | None, layer: int) -> tuple[int, ...]:
    """Return some of the heads, other ones in each layer."""
    return tuple(head for head in range(heads or 0) if (head + layer) % (2 + layer % 3))


def masked(path: Path, plan: Plan) -> ir.Model:
    """Return the model of a file with zeros in the outgoing rows of what a plan drops, weight by weight."""
    model = ffc.load(path)
    blocks: Blocks = find(model)
    for layer, kept in zip(blocks.layers, plan.layers, strict=True):
        if layer.cuttable is not None and kept.heads is not None:
            zero(model, layer.cuttable.roles["attn_out"], kept.heads, layer.cuttable.heads)
        if layer.ffn is not None and kept.units is not None:
            zero(model, layer.ffn.ffn_out, kept.units, layer.ffn.units)
    return model


def zero(model: ir.Model, product: Product, kept: Sequence[int], groups: int) -> None:
    """Let one product read a copy of its weight, the rows of groups that are not kept zero."""
    weight = product.matrix().copy()
    rows = weight.shape[0] // groups
    for group in sorted(set(range(groups)) - set(kept)):
        weight[group * rows : (group + 1) * rows] = 0
    stored = weight.T if product.node.op_type == "Gemm" and product.transposed else weight
    tensor = ir.Tensor(np.ascontiguousarray(stored), name=f"{product.name}.masked")
    value = ir.Value(name=tensor.name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
    model.graph.register_initializer(value)
    product.node.replace_input_with(1, value)


def inputs(cell: Cell) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yield inputs and their mask: full, padded right and left, and holed, of several batch sizes and lengths."""
    for length in (*LENGTHS, encoders.MAX_LENGTH[cell.kind]):
        for batch in BATCHES if length < 30 else BATCHES[:1]:
            for mask in masks(batch, length).values():
                yield feeds(mask, vocabulary=encoders.VOCABULARY, types=cell.types, seed=length), mask


def apart(cell: Cell, before: Path | ir.Model, after: ir.Model) -> float:
    """Return the largest difference relative to the scale of the output, at real tokens, in onnxruntime."""
    one, other = Stock(before), Stock(after)
    # The largest of numbers of which one is none is none, as max() has it not.
    return float(np.max([difference(one(given), other(given), mask) for given, mask in inputs(cell)]))


def alike(cell: Cell, before: ir.Model, after: ir.Model) -> float:
    """Return the mean cosine of all outputs at real tokens, in onnxruntime."""
    one, other = Stock(before), Stock(after)
    cosines = []
    for given, mask in inputs(cell):
        (a,), (b,) = one(given).values(), other(given).values()
        a, b = (array[mask > 0] if array.ndim == 3 else array for array in (a, b))
        cosines += list((a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)))
    return float(np.mean(cosines))
