"""Finding out by running a model which of its inputs say which tokens are real, and how: names do not tell.

Where an input hides tokens, what stands in their place changes nothing at the others; where it shows them, it does.
A key padding mask of torch, where True hides, is told from an attention mask so, and lengths from labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.probing.inputs import dtype_of, likely_mask, table_rows
from ffc.compiler.proof.probing.layout import Layout, counts_tokens
from ffc.compiler.proof.probing.mask_inputs import FLOAT_FORMS, INTERVALS, LEFT_HIDDEN, MASKS, Form, MaskInput
from ffc.compiler.proof.probing.tower import Meaning, Tower, meaning_of
from ffc.errors import FfcError
from ffc.graph.shapes.dim import Dim, evaluate
from ffc.graph.shapes.inference import Shapes

__all__ = ["candidates", "find_towers", "guessed"]

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Runs a model on inputs by name and returns its outputs by name."""

_MOST_CANDIDATES = 8
_STILL = 1e-4
"""What moves by less than this, relative to the scale of its output, does not move."""
_FAINT = 0.05
"""Nor does what moves by less than this share of what it does when it is shown: int8 rounds by what all tokens hold."""


def find_towers(
    model: ir.Model, layout: Layout, run: Run, feeds: Mapping[str, np.ndarray], shapes: Shapes
) -> list[Tower]:
    """Return the towers of `model` whose tokens some input can hide.

    Args:
        model: The model.
        layout: The dimensions of its inputs.
        run: Runs it.
        feeds: Inputs that it runs on, with more tokens than one.
        shapes: What is known of its shapes.
    """
    open_ones = candidates(model, layout)
    if not open_ones:
        return []
    search = _Search(model, layout, run, dict(feeds), shapes)
    found: list[Tower] = []
    for _ in range(2):  # what is found shows what the others say
        for name in list(open_ones):
            tower = search.tower(name, [other for other in open_ones if other != name], found)
            if tower is not None:
                found.append(tower)
                open_ones.remove(name)
    return _joined(found)


def guessed(model: ir.Model, layout: Layout, *, named: bool) -> list[Tower]:
    """Return the tower of the input that looks most like a mask, its form told by its type and numbers.

    Args:
        model: The model.
        layout: The dimensions of its inputs.
        named: Whether nothing but an input that is called a mask will do.
    """
    value = likely_mask(model)
    if value is None or (named and "mask" not in str(value.name).lower()):
        return []
    dims = layout.shapes[str(value.name)]
    added = dtype_of(value).kind == "f" and len(dims) > 2
    mask_input = MaskInput(str(value.name), Form.ADDED if added else Form.KEPT)
    holders = frozenset(name for name, others in layout.shapes.items() if name != value.name and dims[-1] in others)
    return [Tower((mask_input,), holders, dims[0], dims[-1])]


def candidates(model: ir.Model, layout: Layout) -> list[str]:
    """Return the inputs that may say which tokens are real, those first that look most like it."""
    scored = []
    for value in model.graph.inputs:
        name, dims, kind = str(value.name), layout.shapes[str(value.name)], dtype_of(value).kind
        if kind not in "biuf" or not dims or table_rows(value) is not None:
            continue
        if _is_places(dims, kind) or _is_mask(name, dims, layout):
            scored.append((("mask" not in name.lower(), "biuf".index(kind)), name))
    return [name for _, name in sorted(scored)][:_MOST_CANDIDATES]


def _is_places(dims: Sequence[Dim], kind: str) -> bool:
    return kind in "iu" and (len(dims) == 1 or (len(dims) == 2 and dims[1] == 1))


def _is_mask(name: str, dims: Sequence[Dim], layout: Layout) -> bool:
    if not 1 <= len(dims) <= 4 or dims[-1] == 1:
        return False
    if len(dims) > 2 and dims[-2] != 1 and not counts_tokens(dims[-2], dims[-1]):
        return False
    return any(_holds(other, dims[-1]) for key, other in layout.shapes.items() if key != name)


def _holds(dims: Sequence[Dim], length: Dim) -> bool:
    """Whether an input of these dimensions holds something for each token, or for each of the last."""
    return len(dims) > 1 and any(counts_tokens(dim, length) for dim in dims)


def _joined(towers: Sequence[Tower]) -> list[Tower]:
    """Join towers that hold the same inputs: of one, several inputs may say which tokens are real."""
    found: list[Tower] = []
    for tower in towers:
        same = next((other for other in found if other.holders & tower.holders and other.length == tower.length), None)
        if same is None:
            found.append(tower)
        else:
            joined = Tower((*same.masks, *tower.masks), same.holders | tower.holders, same.rows, same.length)
            found[found.index(same)] = joined
    return found


@dataclass(frozen=True, eq=False)
class _Search:
    """A model and inputs that it runs on, of which some are changed at a time."""

    model: ir.Model
    layout: Layout
    run: Run
    feeds: dict[str, np.ndarray]
    shapes: Shapes

    def tower(self, name: str, unknown: Sequence[str], found: Sequence[Tower]) -> Tower | None:
        """Return what the input `name` says, while the others that may say something hide as little as can be told."""
        known = {mask_input.name for tower in found for mask_input in tower.masks}
        for fill in (1, 0):
            whole = self._whole(found) | {other: self._filled(other, fill) for other in unknown}
            for mask_input, length in self._readings(name):
                holders = [
                    other
                    for other, dims in self.layout.shapes.items()
                    if other != name and other not in known and _holds(dims, length)
                ]
                held = self._held(mask_input, length, holders, whole)
                if held:
                    return Tower((mask_input,), frozenset(held), self._rows(mask_input, held), length)
            if not unknown:
                break
        return None

    def _readings(self, name: str) -> Iterator[tuple[MaskInput, Dim]]:
        dims, kind = self.layout.shapes[name], self.feeds[name].dtype.kind
        if _is_places(dims, kind):
            lengths = dict.fromkeys(
                dim
                for other, others in self.layout.shapes.items()
                if other != name and len(others) > 1
                for dim in others[:2]
                if dim != dims[0] and not (isinstance(dim, int) and dim < 2)
            )
            for length in lengths:
                yield from ((MaskInput(name, form), length) for form in INTERVALS)
        if len(dims) == 1 or not _is_places(dims, kind):
            alike = len(dims) == 1 or (len(dims) == 2 and dims[0] == dims[1])
            for form in FLOAT_FORMS if kind == "f" else MASKS:
                yield MaskInput(name, form, by_row=not alike and dims[0] != 1), dims[-1]

    def _held(
        self, mask_input: MaskInput, length: Dim, holders: Sequence[str], whole: Mapping[str, np.ndarray]
    ) -> Sequence[str]:
        """Return those of some inputs whose tokens an input hides, if it says what is tried."""
        trial = self._trial(mask_input, length, holders, whole)
        if trial is None:
            return ()
        if trial.hides(holders):
            return holders
        return [holder for holder in holders if trial.hides([holder])] if len(holders) > 1 else ()

    def _trial(
        self, mask_input: MaskInput, length: Dim, holders: Sequence[str], whole: Mapping[str, np.ndarray]
    ) -> _Trial | None:
        sizes = self.layout.bind(self.feeds)
        tower = Tower((mask_input,), frozenset(holders), self._rows(mask_input, holders), length)
        batch, tokens = tower.size(sizes)
        if tokens < (4 if mask_input.form in INTERVALS else 2) or not holders:  # fewer tell no length from its contrary
            return None
        given = self.feeds[mask_input.name]
        masks = _hidden(batch, tokens, mask_input.form), np.ones((batch, tokens), np.bool_)
        feeds, shown = (
            {**self.feeds, **whole, mask_input.name: mask_input.write(mask, given.shape, given.dtype)} for mask in masks
        )
        real = tower.real(feeds, sizes)
        if real.all() or not real.any():
            return None
        meaning = meaning_of(self.model, self.layout, [tower], self.shapes)
        return _Trial(self.run, feeds, shown, real, meaning, mask_input.form, length)

    def _rows(self, mask_input: MaskInput, holders: Sequence[str]) -> Dim:
        """Return the dimension of rows: the first of a mask, unless it counts the heads of each."""
        dims = self.layout.shapes[mask_input.name]
        other = next((self.layout.shapes[name] for name in holders if len(self.layout.shapes[name]) > 1), dims)
        rows = next((dim for dim in other[:2] if dim not in dims[-1:]), 1)
        if not mask_input.by_row:
            return rows
        sizes = self.layout.bind(self.feeds)
        own, given = (evaluate(dim, sizes) for dim in (dims[0], rows))
        return rows if own > given and own % given == 0 else dims[0]

    def _whole(self, found: Sequence[Tower]) -> dict[str, np.ndarray]:
        """Return inputs that hide nothing, of those of which is known what they say."""
        sizes = self.layout.bind(self.feeds)
        whole = {}
        for tower in found:
            shown = np.ones(tower.size(sizes), np.bool_)
            for each in tower.masks:
                whole[each.name] = each.write(shown, self.feeds[each.name].shape, self.feeds[each.name].dtype)
        return whole

    def _filled(self, name: str, fill: int) -> np.ndarray:
        """Return ones or zeros for an input; for one that may say where tokens end, the most there are."""
        given = self.feeds[name]
        if given.dtype.kind == "f":
            return given
        if fill and _is_places(self.layout.shapes[name], given.dtype.kind):
            sizes = [array.shape[1] for array in self.feeds.values() if array.ndim > 1]
            return np.full_like(given, max(sizes, default=1))
        return np.full_like(given, fill)


@dataclass(frozen=True, eq=False)
class _Trial:
    """One reading of one input.

    Attributes:
        run: Runs the model.
        feeds: Inputs under which some tokens are hidden, if the reading is right.
        shown: The same under which none is.
        real: Those that are not hidden, bool [B, S].
        meaning: What the model's outputs have to do with them.
        form: How the input is read.
        length: The dimension of tokens.
    """

    run: Run
    feeds: Mapping[str, np.ndarray]
    shown: Mapping[str, np.ndarray]
    real: np.ndarray
    meaning: Meaning
    form: Form
    length: Dim

    def hides(self, holders: Sequence[str]) -> bool:
        """Whether hidden tokens of these inputs change nothing at others, and what is shown does."""
        try:
            still = self._moved(self.feeds, holders, ~self.real)
            moved = min(self._moved(*each) for each in self._shown(holders)) if still < float("inf") else 0.0
        except FfcError:
            return False
        return still <= max(_STILL, moved * _FAINT) and _STILL < moved < float("inf")

    def _shown(self, holders: Sequence[str]) -> Iterator[tuple[Mapping[str, np.ndarray], Sequence[str], np.ndarray]]:
        """Yield changes that count if the reading is right: to what is hidden, once it is shown, and beside an end.

        What comes after an end may never count at others: a causal model does not look there.
        """
        if self.form not in INTERVALS or self.form in LEFT_HIDDEN:
            yield self.shown, holders, ~self.real
        if self.form in INTERVALS:
            yield self.feeds, holders, _beside(self.real, self.form)
            yield self.shown, holders, _beside(np.ones_like(self.real), self.form)

    def _changed(
        self, feeds: Mapping[str, np.ndarray], holders: Sequence[str], places: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return inputs with other contents at some places."""
        changed = dict(feeds)
        for name in holders:
            array, dims = feeds[name], self.meaning.layout.shapes[name]
            axis = next(axis for axis, dim in enumerate(dims) if counts_tokens(dim, self.length))
            where = places[:, -array.shape[axis] :]
            rows = next((place for place in range(2) if place != axis and array.shape[place] == len(where)), None)
            if rows is None:
                where = np.asarray(where.any(axis=0, keepdims=True))
            shape = [size if place in (rows, axis) else 1 for place, size in enumerate(array.shape)]
            across = where if rows is None or rows < axis else where.T
            other = np.random.default_rng(1).permutation(array.ravel()).reshape(array.shape)
            changed[name] = np.where(across.reshape(shape), other, array)
            if np.array_equal(changed[name], array):
                changed[name] = np.where(across.reshape(shape), 1 - array.astype(np.int64), array).astype(array.dtype)
        return changed

    def _moved(self, feeds: Mapping[str, np.ndarray], holders: Sequence[str], places: np.ndarray) -> float:
        """Return how far outputs of other real tokens move, relative to their scale, where some places change.

        What is not finite moves infinitely.
        """
        before, after = self.run(feeds), self.run(self._changed(feeds, holders, places))
        _, counted = self.meaning.counted(feeds, but=places)
        worst = 0.0
        for name, array in before.items():
            one, other = (counted[name].pick(each) for each in (array, after[name]))
            if one.dtype.kind not in "biuf" or one.shape != other.shape or not one.size:
                continue
            one, other = one.astype(np.float64), other.astype(np.float64)
            if not np.isfinite(one).all() or not np.isfinite(other).all():
                return float("inf")
            worst = max(worst, float(np.abs(one - other).max()) / (float(np.abs(one).max()) or 1.0))
        return worst


def _hidden(batch: int, tokens: int, form: Form) -> np.ndarray:
    """Return a mask [B, S] with some tokens hidden: at the edge that a form can hide, else in between.

    The first and the last are what heads read, and a causal model never looks to the right.
    """
    mask, some = np.ones((batch, tokens), np.bool_), max(1, tokens // 3)
    if form in INTERVALS:
        mask[:, slice(some) if form in LEFT_HIDDEN else slice(-some, None)] = False
        return mask
    inner = (slice(1, 1 + some), slice(-1 - some, -1), slice(1, -1, 2))
    for row in range(batch):
        mask[row, inner[row % len(inner)]] = False
    return mask


def _beside(real: np.ndarray, form: Form) -> np.ndarray:
    """Return every other of the real tokens next to where they begin or end, bool [B, S], but not the one at the end.

    A causal model shows it to no other. They are so few that they are hidden where the contrary of `form` is meant.
    """
    ranks = real.cumsum(axis=1) if form in LEFT_HIDDEN else real[:, ::-1].cumsum(axis=1)[:, ::-1]
    return np.asarray(real & (ranks % 2 == 0) & (ranks <= max(2, real.shape[1] // 3)))
