"""Inputs on which contracts are checked, made from what a graph asks for."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.token_indices import draw_token_indices, holds_token_indices
from ffc.errors import InputError
from ffc.graph.dialect.edit import constant
from ffc.graph.shapes.dim import Dim
from ffc.graph.shapes.inference import infer

__all__ = ["Probe", "from_data", "make", "read", "token_axes"]

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
_SHORT_CASES = [
    ("full", 2, 3),
    ("right-padded", 2, 4),
    ("left-padded", 2, 4),
    ("holed", 2, 4),
    ("masked row", 2, 4),
]

_MASKED = -10_000.0
"""What an additive mask holds at padding: far below any score, and finite in half precision."""

_LEAST_REAL = -1000.0
"""An additive mask of a user's own holds less than this at padding; position biases hold more."""


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
    masked throughout. Ids stay within the tables they index. Fixed dimensions keep their size. A mask per query
    ([B, S, S], [B, 1, S, S], [B, 1, 1, S]) shows each query the same real tokens, or some of them in the holed case.

    Raises:
        InputError: If an input has a type that no probe can be made for.
    """
    random = np.random.default_rng(seed)
    source = _mask_input(model)
    found: dict[str, Probe] = {}
    for kind, batch, length in [*_CASES, *_SHORT_CASES]:
        if source is None and kind != "full":
            continue
        mask = None if source is None else _mask(kind, _outer(_shape(source, batch, length)), random)
        feeds = {
            str(v.name): _feed(v, _shape(v, batch, length), source, mask, kind, random) for v in model.graph.inputs
        }
        name = f"{kind} {'x'.join(map(str, next(iter(feeds.values())).shape[:2]))}" if feeds else kind
        found.setdefault(name, Probe(name, feeds, mask, spare=(kind, batch, length) in _SHORT_CASES))
    return list(found.values())


def from_data(model: ir.Model, data: str | Path | Mapping[str, Any]) -> list[Probe]:
    """Make probes from a user's rows; a model must run on each of them.

    Args:
        model: The model.
        data: An array per input, rows first, or the path of an ``.npz`` file with them. An input whose first dimension
            is fixed while that of others is not is the same for all rows.

    Raises:
        InputError: If the file is missing or broken, or an input has no array or one of another type, rank, size or
            number of rows.
    """
    given = read(data)
    inputs = list(model.graph.inputs)
    missing = next((str(value.name) for value in inputs if value.name not in given), None)
    if missing:
        raise InputError(f"the data has no array '{missing}', which the model takes; it has {', '.join(given)}")
    arrays = {str(value.name): _fitting(value, given[str(value.name)]) for value in inputs}
    by_row = [value for value in inputs if _fixed(value, 0) is None and arrays[str(value.name)].ndim] or inputs
    fixed = _fixed(by_row[0], 0) if by_row else None
    number = _number_of_rows(by_row, arrays, fixed)
    _check_sizes(inputs, by_row, arrays)
    source = _mask_input(model)
    step = fixed or _DATA_BATCH
    probes = []
    for start in range(0, number, step):
        part = {str(value.name): arrays[str(value.name)][start : start + step] for value in by_row}
        mask = None if source is None else _real_tokens((arrays | part)[str(source.name)])
        probes.append(Probe(f"data row {start}", arrays | part, mask, required=True))
    return probes


def token_axes(model: ir.Model) -> dict[str, int | None]:
    """Return, by output, the axis along which the tokens of the model's mask lie, told by the names of dimensions.

    Returns:
        1 for [B, S, ...], 2 for attention [B, H, S, S]; 0 for an output with one entry per row; None for one that does
        not depend on the batch. Outputs for which names do not tell are left out.
    """
    source = _mask_input(model)
    shapes = infer(model)
    wanted = None if source is None else shapes.of(source)
    if source is None or source.shape is None or not wanted:
        return {}
    batch, length = wanted[0], wanted[-1]
    names = {_name(source.shape[0]): batch, _name(source.shape[-1]): length}
    found = {}
    for value in model.graph.outputs:
        dims = _dims(value, shapes.of(value) or (), names)
        if dims and not _told_by_size(dims, batch, length):
            found[str(value.name)] = _token_axis(dims, batch, length)
    return found


def _name(dim: int | ir.SymbolicDim) -> str | None:
    return None if isinstance(dim, int) else dim.value


def _dims(value: ir.Value, inferred: Sequence[Dim], names: Mapping[str | None, Dim]) -> list[Dim]:
    """Return what is inferred of an output's dimensions, those of the mask's names taken as the exporter named them."""
    recorded = [_name(dim) for dim in value.shape or ()]
    if len(recorded) != len(inferred):
        return list(inferred)
    return [
        dim if isinstance(dim, int) or not name else names.get(name, dim)
        for dim, name in zip(inferred, recorded, strict=True)
    ]


def _token_axis(dims: Sequence[Dim], batch: Dim, length: Dim) -> int | None:
    if isinstance(dims[0], int) and dims[0] != batch:
        return None
    if dims[0] != batch:
        return 0
    if isinstance(length, int):  # an equal number may be a coincidence: labels, or a width
        return 1 if len(dims) > 2 and dims[1] == length else 0
    return next((axis for axis in range(1, len(dims)) if dims[axis] == length), 0)


def _told_by_size(dims: Sequence[Dim], batch: Dim, length: Dim) -> bool:
    """Return whether nothing but its size tells if the second axis holds tokens."""
    if len(dims) < 3 or isinstance(dims[0], int) or isinstance(dims[1], int):
        return False
    return dims[0] != batch or length not in dims[1:]


def read(data: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arrays of an ``.npz`` file, or those given.

    Raises:
        InputError: If the file is missing or broken.
    """
    if isinstance(data, Mapping):
        return data
    try:
        with Path(data).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error.strerror) if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise InputError(
            f"cannot read rows from {data}: {reason}; give an .npz file with an array per input"
        ) from error


def _fitting(value: ir.Value, given: Any) -> np.ndarray:
    """Return the array given for an input in the input's type, refusing one whose numbers or rank do not fit."""
    what = f"the data's array '{value.name}'"
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InputError(f"{what} has rows of different lengths; pad them to one length") from error
    dtype = _dtype(value)
    if dtype.kind not in "biuf":
        raise InputError(f"input '{value.name}' is of type {value.dtype}; models of numbers only can be proved")
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InputError(f"{what} is of type {array.dtype}, the input takes {dtype}; give it in that type")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InputError(f"{what} holds NaN; give numbers")
    if value.shape is not None and array.ndim != len(value.shape):
        raise InputError(f"{what} has {array.ndim} dimensions, the input has {len(value.shape)}: {value.shape}")
    with np.errstate(over="ignore"):
        cast = array.astype(dtype, copy=False)
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        raise InputError(f"{what} holds numbers that do not fit into the input's type, {dtype}")
    return cast


def _number_of_rows(by_row: Sequence[ir.Value], arrays: Mapping[str, np.ndarray], step: int | None) -> int:
    """Return how many rows there are, which must be a multiple of the fixed batch size `step` if there is one."""
    rows = {len(array) if (array := arrays[str(value.name)]).ndim else 0 for value in by_row}
    if len(rows) != 1 or not min(rows):
        raise InputError(f"the data's arrays have {sorted(rows)} rows; all must have the same number, at least one")
    number = rows.pop()
    if step and number % step:
        raise InputError(f"the data has {number} rows; the model takes {step} at a time, so give a multiple of that")
    return number


def _check_sizes(inputs: Sequence[ir.Value], by_row: Sequence[ir.Value], arrays: Mapping[str, np.ndarray]) -> None:
    for value in inputs:
        array = arrays[str(value.name)]
        first = 1 if any(value is other for other in by_row) else 0
        for axis in range(first, array.ndim):
            size = _fixed(value, axis)
            if size is not None and array.shape[axis] != size:
                raise InputError(
                    f"the data's array '{value.name}' has size {array.shape[axis]} on axis {axis}, "
                    f"the input is fixed at {size}: {value.shape}"
                )


def _fixed(value: ir.Value, axis: int) -> int | None:
    """Return the size at which a dimension of an input is fixed, None where it is free."""
    dims = list(value.shape or ())
    dim = dims[axis] if axis < len(dims) else None
    return dim if isinstance(dim, int) and dim >= 0 else None


def _real_tokens(array: np.ndarray) -> np.ndarray:
    """Return which tokens a mask of the user's own keeps, bool [B, S]: those that any query sees."""
    least = 0.0
    if array.dtype.kind == "f" and array.size and not array.max() > 0:
        least = _LEAST_REAL  # nothing is above zero: it is added to the scores
    kept = array > least
    between = tuple(range(1, array.ndim - 1))
    real = kept.any(axis=between)
    if array.ndim > 2 and array.shape[-2] == array.shape[-1] > 1:
        real &= kept.any(axis=(*between[:-1], array.ndim - 1))  # one that sees nothing has no meaning
    return np.asarray(real)


def _dtype(value: ir.Value) -> np.dtype:
    if value.dtype in (None, ir.DataType.UNDEFINED):
        raise InputError(f"input '{value.name}' has no type; export the model again")
    return value.dtype.numpy()


def _shape(value: ir.Value, batch: int, length: int) -> tuple[int, ...]:
    sizes = [_fixed(value, axis) for axis in range(len(value.shape or ()))]
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
        return mask.astype(_dtype(value))
    if mask is not None and _is_mask_per_query(value) and _outer(shape) == mask.shape:
        shown = _per_query(mask, shape, random if kind == "holed" else None)
        dtype = _dtype(value)
        return (np.where(shown, 0.0, _MASKED) if dtype.kind == "f" else shown).astype(dtype)
    if mask is not None and shape[:1] == mask.shape[:1] and holds_token_indices(value):
        return draw_token_indices(mask, shape, random).astype(_dtype(value))
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
    dtype = _dtype(value)
    if dtype.kind in "iu":
        return random.integers(0, _rows(value) or 2, shape).astype(dtype)
    if dtype.kind == "b":
        drawn = np.asarray(random.random(shape) < 0.5)
        drawn[..., :1] = True  # what masks everything has no meaning
        return drawn
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
    place = {"Embed": {0: 3, 1: 4, 2: 5}, "EmbedInt8": {0: 3, 1: 5, 2: 7}, "GatherHalf": {1: 0}, "GatherInt8": {2: 0}}
    place["EmbedHalf"] = place["Embed"]
    at = place.get(node.op_type, {}).get(index) if node.domain == "ffc" else None
    table = None if at is None else constant(node.inputs[at])
    return [] if table is None else [table.shape[0]]


def _mask_input(model: ir.Model) -> ir.Value | None:
    """Return the input that says which tokens are real.

    It has two axes and numbers that index no table; where there is none, it is a mask per query.
    """
    able = [v for v in model.graph.inputs if v.shape is not None and len(v.shape) == 2 and not _rows(v)]
    per_query = [value for value in model.graph.inputs if _is_mask_per_query(value)]
    named = [value for value in [*able, *per_query] if "mask" in str(value.name).lower()]
    integers = [value for value in able if value.dtype is not None and _dtype(value).kind in "iub"]
    return next(iter([*named, *integers, *per_query]), None)


def _is_mask_per_query(value: ir.Value) -> bool:
    """Return whether an input is an attention mask [B, S, S], [B, 1, S, S] or [B, 1, 1, S]."""
    if value.shape is None or len(value.shape) not in (3, 4) or value.dtype is None:
        return False
    kind = _dtype(value).kind
    return kind == "b" or (kind in "iuf" and "mask" in str(value.name).lower())


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
    if kind == "masked row":
        mask[batch // 2] = batch == 1
    return mask
