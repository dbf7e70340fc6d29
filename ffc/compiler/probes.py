"""Inputs on which contracts are checked, made from what a graph asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ffc.errors import InputError
from ffc.graph.edit import constant

__all__ = ["Probe", "from_data", "make"]

_DATA_BATCH = 16

# Name, batch size, tokens. Every row but the first of a padded case loses tokens.
_CASES = [
    ("full", 1, 8),
    ("full", 2, 33),
    ("right-padded", 3, 12),
    ("left-padded", 3, 12),
    ("holed", 3, 17),
    ("masked row", 3, 9),
]


@dataclass(frozen=True, eq=False)
class Probe:
    """One set of inputs.

    Attributes:
        name: What reports call it.
        feeds: Arrays by input name.
        mask: Which tokens are real, bool [B, S]; None where the model takes no mask.
    """

    name: str
    feeds: Mapping[str, np.ndarray]
    mask: np.ndarray | None


def make(model: ir.Model, seed: int = 0) -> list[Probe]:
    """Make probes for `model`.

    There are several batch sizes and lengths, and masks that are full, padded right and left, holed, and with one row
    masked throughout. Ids stay within the tables they index. Fixed dimensions keep their size.

    Raises:
        InputError: If an input has a type that no probe can be made for.
    """
    random = np.random.default_rng(seed)
    mask_name = _mask_input(model)
    found: dict[str, Probe] = {}
    for kind, batch, length in _CASES:
        if mask_name is None and kind != "full":
            continue
        feeds: dict[str, np.ndarray] = {}
        mask = None
        for value in model.graph.inputs:
            shape = _shape(value, batch, length)
            if value.name == mask_name:
                mask = _mask(kind, shape, random)
                feeds[str(value.name)] = mask.astype(_dtype(value))
            else:
                feeds[str(value.name)] = _fill(value, shape, random)
        name = f"{kind} {'x'.join(map(str, next(iter(feeds.values())).shape[:2]))}" if feeds else kind
        found.setdefault(name, Probe(name, feeds, mask))
    return list(found.values())


def from_data(model: ir.Model, data: str | Path | Mapping[str, np.ndarray]) -> list[Probe]:
    """Make probes from a user's rows.

    Args:
        model: The model.
        data: An array per input, rows first, or the path of an ``.npz`` file with them.

    Raises:
        InputError: If the file is missing or broken, or an input has no array or one of another type or length.
    """
    arrays = _read(data)
    mask_name = _mask_input(model)
    names = [str(value.name) for value in model.graph.inputs]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(f"the data has no array '{missing[0]}', which the model takes; it has {', '.join(arrays)}")
    rows = {len(arrays[name]) for name in names}
    if len(rows) != 1 or not min(rows):
        raise InputError(f"the data's arrays have {sorted(rows)} rows; all must have the same number, at least one")
    probes = []
    for start in range(0, rows.pop(), _DATA_BATCH):
        part = slice(start, start + _DATA_BATCH)
        feeds = {str(v.name): arrays[str(v.name)][part].astype(_dtype(v), copy=False) for v in model.graph.inputs}
        probes.append(Probe(f"data row {start}", feeds, None if mask_name is None else feeds[mask_name] > 0))
    return probes


def _read(data: str | Path | Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    if isinstance(data, Mapping):
        return data
    try:
        with np.load(data, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"cannot read rows from {data}: {error}; give an .npz file with an array per input") from error


def _dtype(value: ir.Value) -> np.dtype:
    if value.dtype is None:
        raise InputError(f"input '{value.name}' has no type")
    return value.dtype.numpy()


def _shape(value: ir.Value, batch: int, length: int) -> tuple[int, ...]:
    dims = list(value.shape or ())
    return tuple(dim if isinstance(dim, int) else length if axis else batch for axis, dim in enumerate(dims))


def _fill(value: ir.Value, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    dtype = _dtype(value)
    if dtype.kind in "iu":
        return random.integers(0, _rows(value) or 2, shape).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    raise InputError(f"input '{value.name}' is of type {value.dtype}; probes can be made for numbers only")


def _rows(value: ir.Value) -> int | None:
    """Return the number of rows of the smallest constant table that ids from `value` look up as they are, or None."""
    rows: list[int] = []
    pending = [value]
    while pending:
        for use in pending.pop().uses():
            node = use.node
            table = constant(node.inputs[0]) if node.op_type == "Gather" and use.idx == 1 else None
            call_tables = _call_tables(node, use.idx)
            if table is not None:
                rows.append(table.shape[0])
            elif call_tables:
                rows += call_tables
            elif node.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten") and use.idx == 0:
                pending.append(node.outputs[0])
    return min(rows, default=None)


def _call_tables(node: ir.Node, index: int) -> list[int]:
    """Return the number of rows of the table that input `index` of an ``ffc`` embedding indexes."""
    place = {"Embed": {0: 3, 1: 4, 2: 5}, "EmbedInt8": {0: 3, 1: 5, 2: 7}, "GatherInt8": {2: 0}}
    at = place.get(node.op_type, {}).get(index) if node.domain == "ffc" else None
    table = None if at is None else constant(node.inputs[at])
    return [] if table is None else [table.shape[0]]


def _mask_input(model: ir.Model) -> str | None:
    """Return the input that says which tokens are real: two axes, numbers that index no table."""
    able = [v for v in model.graph.inputs if v.shape is not None and len(v.shape) == 2 and not _rows(v)]
    named = [str(value.name) for value in able if "mask" in str(value.name)]
    integers = [str(value.name) for value in able if value.dtype is not None and _dtype(value).kind in "iub"]
    return next(iter([*named, *integers]), None)


def _mask(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Return a bool mask [B, S] of the kind named."""
    batch, length = shape
    mask = np.ones(shape, np.bool_)
    for row in range(1, batch):
        lost = int(random.integers(1, max(2, length // 2)))
        if kind == "right-padded":
            mask[row, length - lost :] = False
        elif kind == "left-padded":
            mask[row, :lost] = False
        elif kind == "holed":
            mask[row, random.choice(np.arange(1, length), size=min(lost, length - 1), replace=False)] = False
    if kind == "holed":
        mask[0, 1:length:3] = False
    if kind == "masked row":
        mask[batch // 2] = batch == 1
    return mask
