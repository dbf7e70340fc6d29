"""Scores from forward passes of the ONNX model alone, so that a model and some rows are enough to prune."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ffc.errors import CannotApplyError, InputError
from ffc.graph.blocks import Blocks, Product
from ffc.graph.edit import Editor
from ffc.graph.execute import Runner
from ffc.graph.finder import find
from ffc.graph.foreign import reason_to_leave
from ffc.graph.ops import PLAIN, is_call
from ffc.pruning.importance import Importance, LayerImportance, unit_count, weights_hash

__all__ = ["Batch", "by_forward"]


class Batch(Protocol):
    """Rows to run at once; `ffc.compiler.probes.from_data` makes such batches."""

    @property
    def feeds(self) -> Mapping[str, np.ndarray]:
        """Arrays by input name."""

    @property
    def mask(self) -> np.ndarray | None:
        """Which tokens are real, bool [B, S]; None where the model takes no mask."""

    @property
    def axes(self) -> Mapping[str, int | None]:
        """By output, the axis of its tokens, 0 for one entry a row, None for no rows; as `token_axes` tells."""


def by_forward(
    model: ir.Model,
    batches: Sequence[Batch],
    *,
    data: str = "",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Importance:
    """Score heads and feed-forward units by running the model on some rows.

    A head's score is how far the outputs move when it alone is left out: the sum of squared differences, relative to
    the sum of squares of the output, at real tokens, as a mean over the float outputs. That is asked of logits and of
    embeddings alike, since the graph does not tell them apart; and of logits it says more than the divergence of the
    probabilities, which is blind where the model is sure.

    A unit's score goes by ``E[a**2] * |O|**2``: the mean square of its activation over real tokens, times the square of
    its row of the second weight; that is the mean square of what it adds to the residual stream. What that does to the
    outputs differs between layers. So the scores of a layer are scaled to add up to how far outputs move when its
    feed-forward network is left out whole, which makes them compare between layers and with those of heads, as far as
    units add to the stream independently.

    Each batch is run once as it is, and once for every head and every feed-forward network.

    Args:
        model: The model, as exported or later, but not quantised; it is not changed.
        batches: The rows. How they are cut into batches, their order and their padding do not matter.
        data: What the rows are called in the result.
        seed: The seed that chose the rows, for the result.
        progress: Told after each batch how many are done, and of how many.

    Returns:
        Scores with method ``forward``.

    Raises:
        CannotApplyError: If the model is quantised, has no layers that could be found or no float output, or does not
            run on the rows.
        InputError: If there are no rows, or the model gives what is not finite on them.
    """
    blocks = find(model)
    _check(model, blocks, batches)
    added, moved = _Added(model), _Moved(model)
    samples = 0
    for done, batch in enumerate(batches, start=1):
        outputs = added.take_in(batch)
        moved.take_in(batch, outputs)
        samples += _rows(batch)
        if progress is not None:
            progress(done, len(batches))
    layers = []
    for heads, network, units in zip(*moved.distances(), added.squares(), strict=True):
        scaled = units * (network.sum() / (units.sum() or 1.0))  # the network is one part, or none
        layers.append(LayerImportance(heads.astype(np.float32), scaled.astype(np.float32)))
    digest = weights_hash(product.matrix() for layer in blocks.layers for product in layer.products())
    return Importance(tuple(layers), method="forward", data=data, samples=samples, seed=seed, model=digest)


def _check(model: ir.Model, blocks: Blocks, batches: Sequence[Batch]) -> None:
    reason = reason_to_leave(model)
    if reason is None and any(is_call(node, *PLAIN) for node in model.graph):
        reason = "the model holds int8 products"
    if reason:
        raise CannotApplyError(f"{reason}; score the model in float32")
    if not any(layer.attention or layer.ffn for layer in blocks.layers):
        nearest = "".join(f"; {miss.where}: {miss.why}" for miss in blocks.unmatched[:1])
        raise CannotApplyError(f"no head and no feed-forward unit was found in the model, nothing to score{nearest}")
    if not batches:
        raise InputError("there are no rows to score on; give at least one")


class _Added:
    """What feed-forward units add to the residual stream, over all batches."""

    def __init__(self, model: ir.Model) -> None:
        """Open the model with the activations of every feed-forward network as further outputs."""
        shown = model.clone()
        editor = Editor(shown)
        self._layers = find(shown).layers
        self._sums = [np.zeros(unit_count(layer)) for layer in self._layers]
        self._counts = [0] * len(self._layers)
        self._names = [None if layer.ffn is None else _show(editor, layer.ffn.ffn_out) for layer in self._layers]
        self._runner = Runner(shown)

    def take_in(self, batch: Batch) -> dict[str, np.ndarray]:
        """Take one batch in and return the outputs of the model on it."""
        outputs = self._runner.run(batch.feeds)
        for index, name in enumerate(self._names):
            if name is not None:
                activations = _activations(outputs.pop(name), batch.mask)
                self._sums[index] += np.square(activations, dtype=np.float64).sum(axis=0)
                self._counts[index] += len(activations)
        return outputs

    def squares(self) -> Iterator[np.ndarray]:
        """Yield the mean square of what each unit of each layer adds."""
        for layer, total, count in zip(self._layers, self._sums, self._counts, strict=True):
            if layer.ffn is None:
                yield total
                continue
            rows = np.square(layer.ffn.ffn_out.matrix(), dtype=np.float64).sum(axis=1)
            yield total / max(1, count) * rows


class _Moved:
    """How far outputs move when one part of the model is left out, over all batches.

    One session serves all parts: what the last product of each block reads is multiplied by a further input.
    """

    def __init__(self, model: ir.Model) -> None:
        masked = model.clone()
        editor = Editor(masked)
        layers = find(masked).layers
        self._heads = [
            [] if layer.attention is None else _masks(editor, layer.attention.attn_out, layer.attention.heads)
            for layer in layers
        ]
        self._networks = [[] if layer.ffn is None else _masks(editor, layer.ffn.ffn_out, 1) for layer in layers]
        masks = [mask for part in (*self._heads, *self._networks) for mask in part]
        self._ones = {mask.name: mask.ones for mask in masks}
        self._moved = {mask: np.zeros(len(model.graph.outputs)) for mask in masks}
        self._scale = np.zeros(len(model.graph.outputs))
        self._runner = Runner(masked)

    def take_in(self, batch: Batch, outputs: Mapping[str, np.ndarray]) -> None:
        """Take in one batch, on which the whole model gives `outputs`."""
        whole = [_real(array, batch, name) for name, array in outputs.items()]
        if not all(np.isfinite(array).all() for array in whole):
            raise InputError("the model gives what is not finite on these rows; check its weights")
        self._scale += [np.square(array).sum() for array in whole]
        for mask, moved in self._moved.items():
            without = self._runner.run({**batch.feeds, **self._ones, mask.name: mask.without()})
            parts = [_real(array, batch, name) for name, array in without.items()]
            moved += [np.square(one - other).sum() for one, other in zip(parts, whole, strict=True)]

    def distances(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return, by layer, how far outputs move without each head, and without each feed-forward network."""
        counted = self._scale > 0
        if not counted.any():
            raise CannotApplyError("the model gives no float output that is not zero, nothing to score by")
        relative = {mask: float((moved[counted] / self._scale[counted]).mean()) for mask, moved in self._moved.items()}
        heads, networks = (
            [np.array([relative[mask] for mask in masks]) for masks in part] for part in (self._heads, self._networks)
        )
        return heads, networks


@dataclass(frozen=True, eq=False)
class _Mask:
    """One part that can be left out.

    Attributes:
        name: The further input that multiplies what a product reads.
        ones: What it is fed when nothing is left out, a factor for each column [I].
        part: The columns of this part.
    """

    name: str
    ones: np.ndarray
    part: slice

    def without(self) -> np.ndarray:
        """Return factors that leave the part out."""
        factors = self.ones.copy()
        factors[self.part] = 0
        return factors


def _masks(editor: Editor, product: Product, parts: int) -> list[_Mask]:
    """Multiply what a product reads by a new input of the graph, which masks as many parts side by side."""
    weight = product.matrix()
    ones = np.ones(weight.shape[0], weight.dtype)
    name = editor.unique(f"{product.x.name}.kept")
    kept = ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(weight.dtype)), shape=ir.Shape(ones.shape))
    editor.graph.inputs.append(kept)
    scaled = editor.add("", "Mul", [product.x, kept], before=product.node, hint=f"{product.x.name}.scaled")
    product.node.replace_input_with(0, scaled)
    size = len(ones) // parts
    return [_Mask(name, ones, slice(index * size, (index + 1) * size)) for index in range(parts)]


def _show(editor: Editor, product: Product) -> str:
    """Make what a product reads an output of the graph, and return its name."""
    shown = editor.add("", "Identity", [product.x], before=product.node, hint=f"{product.x.name}.shown")
    shown.type = ir.TensorType(ir.DataType.from_numpy(product.matrix().dtype))
    editor.graph.outputs.append(shown)
    assert shown.name is not None
    return shown.name


def _activations(array: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return the activations [tokens, units] of real tokens from [..., units].

    What has one entry a row, as where a pass left one token of each, counts for every row that has real tokens.
    """
    flat: np.ndarray = array.reshape(-1, array.shape[-1])
    if mask is not None and (array.shape[:-1] == mask.shape or (array.ndim == 2 and len(flat) == mask.size)):
        return np.asarray(flat[mask.reshape(-1)])
    if mask is not None and len(flat) == len(mask):
        return np.asarray(flat[mask.any(axis=1)])
    return flat


def _real(array: np.ndarray, batch: Batch, name: str) -> np.ndarray:
    """Return what counts of an output, in float64: real tokens, or rows with any; nothing of what is no float."""
    if array.dtype.kind != "f":
        return np.zeros(0)
    mask, axis = batch.mask, batch.axes.get(name, 1 if array.ndim > 2 else 0)
    exact: np.ndarray = array.astype(np.float64)
    if mask is None or axis is None or not exact.ndim or len(exact) != len(mask):
        return exact
    if 0 < axis < exact.ndim and exact.shape[axis] == mask.shape[1]:
        return np.asarray(np.moveaxis(exact, axis, 1)[mask])
    return np.asarray(exact[mask.any(axis=1)])


def _rows(batch: Batch) -> int:
    if batch.mask is not None:
        return len(batch.mask)
    return max((len(array) for array in batch.feeds.values() if array.ndim), default=1)
