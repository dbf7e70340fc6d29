"""The towers of a model: tokens along one axis, the inputs that hold them, and those that say which are real."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.probing.counted import Counted
from ffc.compiler.proof.probing.layout import Layout
from ffc.compiler.proof.probing.mask_inputs import MaskInput
from ffc.compiler.proof.probing.token_axes import Place, token_places
from ffc.graph.order import subgraphs
from ffc.graph.shapes.dim import Dim, evaluate
from ffc.graph.shapes.inference import Shapes

__all__ = ["Meaning", "Tower", "meaning_of"]


@dataclass(frozen=True)
class Tower:
    """Tokens of one kind.

    Attributes:
        masks: The inputs that say which tokens are real.
        holders: The inputs that hold something for each token.
        rows: The dimension of rows.
        length: The dimension of tokens.
    """

    masks: tuple[MaskInput, ...]
    holders: frozenset[str]
    rows: Dim
    length: Dim

    @property
    def inputs(self) -> frozenset[str]:
        """All inputs that it is about."""
        return self.holders | {mask_input.name for mask_input in self.masks}

    def size(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """Return the number of rows and of tokens, for sizes of symbols."""
        return max(1, evaluate(self.rows, sizes)), max(1, evaluate(self.length, sizes))

    def real(self, feeds: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> np.ndarray:
        """Return which tokens are real as `feeds` say it, bool [B, S]."""
        told = [mask_input.read(feeds[mask_input.name], *self.size(sizes)) for mask_input in self.masks]
        return np.asarray(np.logical_and.reduce(told))


@dataclass(frozen=True)
class Meaning:
    """What the inputs of a model mean.

    Attributes:
        layout: Their dimensions.
        towers: The towers whose tokens may be padding.
        places: For each output, the towers that it depends on, by number, and where in it the tokens of each lie.
    """

    layout: Layout
    towers: tuple[Tower, ...] = ()
    places: Mapping[str, Mapping[int, Place | None]] = field(default_factory=dict)

    @property
    def mask_inputs(self) -> dict[str, MaskInput]:
        """By input, how it says which tokens are real."""
        return {mask_input.name: mask_input for tower in self.towers for mask_input in tower.masks}

    def counted(
        self, feeds: Mapping[str, np.ndarray], but: np.ndarray | bool = False
    ) -> tuple[list[np.ndarray], dict[str, Counted]]:
        """Return which tokens `feeds` say are real, a mask [B, S] for each tower, and what counts of each output.

        Args:
            feeds: Inputs.
            but: Tokens, bool [B, S], that are not to count though they are real.
        """
        sizes = self.layout.bind(feeds)
        masks = [np.asarray(tower.real(feeds, sizes) & ~np.asarray(but)) for tower in self.towers]
        return masks, {name: _counted(masks, places, sizes) for name, places in self.places.items()}


def meaning_of(model: ir.Model, layout: Layout, towers: Iterable[Tower], shapes: Shapes) -> Meaning:
    """Find out what each output has to do with `towers`: by dataflow, and by the names of dimensions.

    Args:
        model: The model.
        layout: The dimensions of its inputs.
        towers: The towers.
        shapes: What is known of its shapes.
    """
    towers = tuple(towers)
    found = [token_places(model, shapes, tower.rows, tower.length) for tower in towers]
    places: dict[str, dict[int, Place | None]] = {}
    for value in model.graph.outputs:
        name, needed = str(value.name), _needed(value)
        places[name] = {
            number: found[number].get(name) for number, tower in enumerate(towers) if tower.inputs & needed
        }
    return Meaning(layout, towers, places)


def _needed(output: ir.Value) -> set[str]:
    """Return the inputs that an output depends on."""
    found: set[str] = set()
    met: set[ir.Value] = set()
    pending = [output]
    while pending:
        value = pending.pop()
        if value in met:
            continue
        met.add(value)
        if value.is_graph_input():
            found.add(str(value.name))
        if (node := value.producer()) is not None:
            pending += _read(node)
    return found


def _read(node: ir.Node) -> list[ir.Value]:
    """Return all that a node reads, and that its subgraphs do."""
    values = [value for value in node.inputs if value is not None]
    for _, graph in subgraphs(node):
        values += [*graph.outputs, *(value for inner in graph for value in _read(inner))]
    return values


def _counted(masks: list[np.ndarray], places: Mapping[int, Place | None], sizes: Mapping[str, int]) -> Counted:
    """Return what counts of an output: of several towers, the tokens of those that lie in it, in rows real in all."""
    if not places:
        return Counted(None)
    if len(places) == 1:
        ((number, place),) = places.items()
        return _of_one(masks[number], place, sizes)
    held = {number: place for number, place in places.items() if place is not None and place.length is not None}
    rows = [np.asarray(masks[number].any(axis=1, keepdims=True)) for number in places]
    if len({len(row) for row in rows}) > 1 or all(place == Place(None) for place in places.values()):
        return Counted(None)
    real = np.asarray(np.logical_and.reduce(rows))
    if not held:
        return Counted(real, 0)
    parts = [_of_one(masks[number], place, sizes) for number, place in held.items()]
    alike = [part.mask for part in parts if part.mask is not None and part.axis == parts[0].axis]
    alike = [mask for mask in alike if mask.shape == alike[0].shape]
    across = real if len(real) == len(alike[0]) else real.T
    return Counted(np.logical_and.reduce([*alike, np.broadcast_to(across, alike[0].shape)]), parts[0].axis)


def _of_one(mask: np.ndarray, place: Place | None, sizes: Mapping[str, int]) -> Counted:
    if place is None:
        return Counted(mask)
    if place.axis is None:
        return Counted(None)
    if place.length is None:
        return Counted(mask, 0)
    last = mask[:, -evaluate(place.length, sizes) :]
    return Counted(last.T, 1) if place.is_first else Counted(last, place.axis)
