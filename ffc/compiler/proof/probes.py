"""Inputs on which contracts are checked, made from what a graph asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.inputs import dtype_of, fixed_size, is_mask_per_query, mask_input, table_rows
from ffc.compiler.proof.token_axes import token_axes
from ffc.compiler.proof.token_indices import draw_token_indices, holds_token_indices
from ffc.errors import InputError
from ffc.graph.blocks.masks import widest_window

__all__ = ["Probe", "make"]

# Name, batch size, tokens. Every row but the first of a padded case loses tokens.
_CASES = [
    ("full", 1, 8),
    ("full", 2, 33),
    ("right-padded", 3, 12),
    ("left-padded", 3, 12),
    ("holed", 3, 17),
    ("masked row", 3, 9),
]
_SHORT_CASES = [
    ("full", 2, 3),
    ("right-padded", 2, 4),
    ("left-padded", 2, 4),
    ("holed", 2, 4),
    ("masked row", 2, 4),
]

_BEYOND = "left-padded beyond windows"
_WIDEST = 256
"""Windows up to this are told from; a probe that is longer costs too much."""

_MASKED = -10_000.0
"""What an additive mask holds at padding: far below any score, and finite in half precision."""


@dataclass(frozen=True, eq=False)
class Probe:
    """One set of inputs.

    Attributes:
        name: What reports call it.
        feeds: Arrays by input name.
        mask: Which tokens are real, bool [B, S]; None where the model takes no mask.
        required: Whether a model that does not run on it is refused; other probes that it cannot take are left out.
        spare: Whether it is short, and run only where a model cannot take one that is longer.
        axes: Which axis of each output `mask` applies to, as `token_axes` tells; that of other outputs goes by sizes.
    """

    name: str
    feeds: Mapping[str, np.ndarray]
    mask: np.ndarray | None
    required: bool = False
    spare: bool = False
    axes: Mapping[str, int | None] = field(default_factory=dict)


def make(model: ir.Model, seed: int = 0) -> list[Probe]:
    """Make probes for `model`.

    There are several batch sizes and lengths, and masks that are full, padded right and left, holed, and with one row
    masked throughout; where queries see a window alone, also one padded on the left by more than that. Ids stay within
    the tables they index. Fixed dimensions keep their size. A mask per query ([B, S, S], [B, 1, S, S], [B, 1, 1, S])
    shows each query the same real tokens, or some of them in the holed case.

    Raises:
        InputError: If an input has a type that no probe can be made for.
    """
    random = np.random.default_rng(seed)
    source = mask_input(model)
    axes = token_axes(model, source)
    found: dict[str, Probe] = {}
    window = widest_window(model, _WIDEST)
    beyond = [] if window is None else [(_BEYOND, 2, window + 8)]
    for kind, batch, length in [*_CASES, *beyond, *_SHORT_CASES]:
        if source is None and kind != "full":
            continue
        mask = None if source is None else _mask(kind, _outer(_shape(source, batch, length)), random)
        feeds = {
            str(v.name): _feed(v, _shape(v, batch, length), source, mask, kind, random) for v in model.graph.inputs
        }
        name = f"{kind} {'x'.join(map(str, next(iter(feeds.values())).shape[:2]))}" if feeds else kind
        spare = (kind, batch, length) in _SHORT_CASES
        found.setdefault(name, Probe(name, feeds, mask, spare=spare, axes=axes))
    return list(found.values())


def _shape(value: ir.Value, batch: int, length: int) -> tuple[int, ...]:
    sizes = [fixed_size(value, axis) for axis in range(len(value.shape or ()))]
    return tuple((length if axis else batch) if size is None else size for axis, size in enumerate(sizes))


def _outer(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], shape[-1]


def _feed(
    value: ir.Value,
    shape: tuple[int, ...],
    source: ir.Value | None,
    mask: np.ndarray | None,
    kind: str,
    random: np.random.Generator,
) -> np.ndarray:
    """Return an array for one input: the mask [B, S], the same for every query, or random numbers."""
    if mask is not None and value is source and len(shape) == 2:
        return mask.astype(dtype_of(value))
    if mask is not None and is_mask_per_query(value) and _outer(shape) == mask.shape:
        shown = _per_query(mask, shape, random if kind == "holed" else None)
        dtype = dtype_of(value)
        return (np.where(shown, 0.0, _MASKED) if dtype.kind == "f" else shown).astype(dtype)
    if mask is not None and shape[:1] == mask.shape[:1] and holds_token_indices(value):
        return draw_token_indices(mask, shape, random).astype(dtype_of(value))
    return _fill(value, shape, random)


def _per_query(mask: np.ndarray, shape: tuple[int, ...], random: np.random.Generator | None) -> np.ndarray:
    """Spread a mask [B, S] over `shape`, [B, ..., S]; with `random` queries see parts, the first real token always."""
    batch, length = mask.shape
    keys = [batch, *[1] * (len(shape) - 2), length]
    shown = np.broadcast_to(mask.reshape(keys), shape)
    if random is None or shape[-2] == 1:
        return shown
    first = np.arange(length) == mask.argmax(axis=1)[:, None]
    return np.asarray(shown & (first.reshape(keys) | (random.random(shape) < 0.7)))


def _fill(value: ir.Value, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    dtype = dtype_of(value)
    if dtype.kind in "iu":
        return random.integers(0, table_rows(value) or 2, shape).astype(dtype)
    if dtype.kind == "b":
        drawn = np.asarray(random.random(shape) < 0.5)
        drawn[..., :1] = True  # what masks everything has no meaning
        return drawn
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    raise InputError(f"input '{value.name}' is of type {value.dtype}; probes can be made for numbers only")


def _mask(kind: str, shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Return a bool mask [B, S] of the kind named."""
    batch, length = shape
    mask = np.ones(shape, np.bool_)
    for row in range(min(1, batch - 1), batch):
        lost = min(int(random.integers(1, max(2, length // 2))), length - 1)
        if kind == "right-padded":
            mask[row, length - lost :] = False
        elif kind == "left-padded":
            mask[row, :lost] = False
        elif kind == "holed" and row:
            mask[row, random.choice(np.arange(1, length), size=lost, replace=False)] = False
    if kind == "holed":
        mask[0, 1:length:3] = False
    if kind == _BEYOND:  # the first tokens see nothing but padding
        mask[1:, : length - 4] = False
    if kind == "masked row":
        mask[batch // 2] = batch == 1
    return mask
