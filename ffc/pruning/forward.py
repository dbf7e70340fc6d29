"""Scores from forward passes of the ONNX model alone, so that a model and some rows are enough to prune."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ffc.errors import CannotApplyError, InputError
from ffc.graph.blocks.finder import find
from ffc.graph.blocks.prequantised import reason_to_leave
from ffc.graph.blocks.structure import Attention, Blocks, FeedForward
from ffc.graph.dialect.edit import Editor
from ffc.graph.dialect.function import quantises
from ffc.graph.execute import Runner
from ffc.progress import Tell
from ffc.pruning.importance import Importance, LayerImportance, blocks_hash, head_count, unit_count

__all__ = ["Batch", "by_forward"]


class Counted(Protocol):
    """What counts of an output."""

    def pick(self, array: np.ndarray) -> np.ndarray:
        """Return what counts of an array: real tokens, rows with any, or all of it."""


class Batch(Protocol):
    """Rows to run at once; `ffc.compiler.proof.rows.from_data` makes such batches."""

    @property
    def feeds(self) -> Mapping[str, np.ndarray]:
        """Arrays by input name."""

    @property
    def mask(self) -> np.ndarray | None:
        """Which tokens are real, bool [B, S]; None where the model takes no mask."""

    def counted(self, output: str) -> Counted:
        """Return what counts of an output."""


def by_forward(
    model: ir.Model,
    batches: Sequence[Batch],
    *,
    data: str = "",
    seed: int = 0,
    progress: Tell | None = None,
) -> Importance:
    """Score heads and feed-forward units by running the model on some rows.

    A head's score is how far the outputs move when it alone is left out: the sum of squared differences, relative to
    the sum of squares of the output, at real tokens, as a mean over the float outputs. That is asked of logits and of
    embeddings alike, since the graph does not tell them apart; and of logits it says more than the divergence of the
    probabilities, which is blind where the model is sure.

    A unit's score is ``E[a**2] * |O|**2``: the mean square of its activation over real tokens, times the square of its
    row of the second weight; that is the mean square of what it adds to the residual stream. It compares within a
    layer; between layers, and with heads, it does not: what the same change of the stream does to the outputs differs.

    Each batch is run once for all units, and once for every head.

    Args:
        model: The model, as exported or later, but not quantised; it is not changed.
        batches: The rows. How they are cut into batches, their order and their padding do not matter.
        data: What the rows are called in the result.
        seed: The seed that chose the rows, for the result.
        progress: Told after each batch.

    Returns:
        Scores with method ``forward``.

    Raises:
        CannotApplyError: If the model is quantised, has no layers that could be found or no float output, or does not
            run on the rows.
        InputError: If there are no rows, or the model gives what is not finite on them.
    """
    blocks = find(model)
    _check(model, blocks, batches)
    units, heads = _UnitScores(model), _HeadScores(model)
    samples = 0
    for done, batch in enumerate(batches, start=1):
        outputs = units.add(batch)
        heads.add(batch, outputs)
        samples += _rows(batch)
        if progress is not None:
            progress(f"{done} of {len(batches)} batches", done, len(batches))
    pairs = zip(heads.scores(), units.scores(), strict=True)
    layers = tuple(LayerImportance(*(scores.astype(np.float32) for scores in pair)) for pair in pairs)
    return Importance(layers, method="forward", data=data, samples=samples, seed=seed, model=blocks_hash(blocks))


def _check(model: ir.Model, blocks: Blocks, batches: Sequence[Batch]) -> None:
    reason = reason_to_leave(model)
    if reason is None and any(quantises(node) for node in model.graph):
        reason = "the model holds int8 products"
    if reason:
        raise CannotApplyError(f"{reason}; score the model in float32")
    if not any(layer.cuttable or layer.ffn for layer in blocks.layers):
        nearest = "".join(f"; {miss.where}: {miss.why}" for miss in blocks.unmatched[:1])
        raise CannotApplyError(f"no head and no feed-forward unit was found in the model, nothing to score{nearest}")
    if not batches:
        raise InputError("there are no rows to score on; give at least one")


class _UnitScores:
    """Second moments of the activations of feed-forward units, over all batches."""

    def __init__(self, model: ir.Model) -> None:
        """Open the model with the activations of every feed-forward network as further outputs."""
        shown = model.clone()
        editor = Editor(shown)
        self._layers = find(shown).layers
        self._sums = [np.zeros(unit_count(layer)) for layer in self._layers]
        self._counts = [0] * len(self._layers)
        self._names = [None if layer.ffn is None else _show(editor, layer.ffn) for layer in self._layers]
        self._runner = Runner(shown)

    def add(self, batch: Batch) -> dict[str, np.ndarray]:
        """Take one batch in and return the outputs of the model on it."""
        outputs = self._runner.run(batch.feeds)
        for index, name in enumerate(self._names):
            if name is not None:
                activations = _activations(outputs.pop(name), batch.mask)
                self._sums[index] += np.square(activations, dtype=np.float64).sum(axis=0)
                self._counts[index] += len(activations)
        return outputs

    def scores(self) -> Iterator[np.ndarray]:
        """Yield the scores of the units of each layer."""
        for layer, total, count in zip(self._layers, self._sums, self._counts, strict=True):
            if layer.ffn is None:
                yield total
                continue
            rows = np.square(layer.ffn.ffn_out.matrix(), dtype=np.float64).sum(axis=1)
            yield total / max(1, count) * rows


class _HeadScores:
    """How far outputs move when one head is left out, over all batches.

    One session serves all heads: what each layer's output projection reads is multiplied by a further input.
    """

    def __init__(self, model: ir.Model) -> None:
        masked = model.clone()
        editor = Editor(masked)
        self._layers = find(masked).layers
        self._masks = [None if layer.cuttable is None else _mask(editor, layer.cuttable) for layer in self._layers]
        self._moved = [np.zeros((head_count(layer), len(model.graph.outputs))) for layer in self._layers]
        self._scale = np.zeros(len(model.graph.outputs))
        self._runner = Runner(masked)

    def add(self, batch: Batch, outputs: Mapping[str, np.ndarray]) -> None:
        """Take in one batch, on which the whole model gives `outputs`."""
        whole = [_real(array, batch, name) for name, array in outputs.items()]
        if not all(np.isfinite(array).all() for array in whole):
            raise InputError("the model gives what is not finite on these rows; check its weights")
        self._scale += [np.square(array).sum() for array in whole]
        ones = {mask.name: mask.ones for mask in self._masks if mask is not None}
        for mask, moved in zip(self._masks, self._moved, strict=True):
            for head in range(len(moved)):
                assert mask is not None  # a layer with heads has one
                without = self._runner.run({**batch.feeds, **ones, mask.name: mask.without(head)})
                parts = [_real(array, batch, name) for name, array in without.items()]
                moved[head] += [np.square(one - other).sum() for one, other in zip(parts, whole, strict=True)]

    def scores(self) -> Iterator[np.ndarray]:
        """Yield the scores of the heads of each layer."""
        counted = self._scale > 0
        if not counted.any():
            raise CannotApplyError("the model gives no float output that is not zero, nothing to score heads by")
        for moved in self._moved:
            yield (moved[:, counted] / self._scale[counted]).mean(axis=1)


class _Mask:
    """The further input of one layer: a factor for each column of what the output projection reads."""

    def __init__(self, name: str, heads: int, ones: np.ndarray) -> None:
        self.name, self._heads, self.ones = name, heads, ones

    def without(self, head: int) -> np.ndarray:
        """Return factors that leave out one head."""
        factors = self.ones.copy()
        factors.reshape(self._heads, -1)[head] = 0
        return factors


def _mask(editor: Editor, attention: Attention) -> _Mask:
    """Multiply what the output projection of an attention reads by a new input of the graph."""
    product = attention.roles["attn_out"]
    weight = product.matrix()
    ones = np.ones(weight.shape[0], weight.dtype)
    name = editor.unique(f"{product.x.name}.kept")
    kept = ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(weight.dtype)), shape=ir.Shape(ones.shape))
    editor.graph.inputs.append(kept)
    editor.replace_input(product.node, 0, editor.at(product.node, f"{product.x.name}.scaled").Mul(product.x, kept))
    return _Mask(name, attention.heads, ones)


def _show(editor: Editor, ffn: FeedForward) -> str:
    """Make what the second product of a feed-forward network reads an output of the graph, and return its name."""
    product = ffn.ffn_out
    shown = editor.at(product.node, f"{product.x.name}.shown").Identity(product.x)
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
    return np.asarray(batch.counted(name).pick(array).astype(np.float64))


def _rows(batch: Batch) -> int:
    if batch.mask is not None:
        return len(batch.mask)
    return max((len(array) for array in batch.feeds.values() if array.ndim), default=1)
