"""Probes from rows of a user's own."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.probes import Probe, understood
from ffc.compiler.proof.probing.inputs import dtype_of, fixed_size
from ffc.errors import InputError, located

__all__ = ["Data", "feeds_of", "from_data", "of_files", "read"]

Data = str | Path | Mapping[str, Any] | Sequence[str | Path | Mapping[str, Any]]
"""Rows, as an array per input or an ``.npz`` file with them; or a list of such, of which each is one whole feed."""

_DATA_BATCH = 16


def from_data(model: ir.Model, data: Data) -> list[Probe]:
    """Make probes from a user's rows; a model must run on each of them.

    Args:
        model: The model.
        data: An array per input, rows first, or the path of an ``.npz`` file with them. An input whose first dimension
            is fixed while that of others is not is the same for all rows. A list of such is taken as it is, each one
            feed, and so are arrays of inputs that share no axis of rows.

    Raises:
        InputError: If a file is missing or broken, or an input has no array or one of another type, rank, size or
            number of rows.
    """
    feeds = feeds_of(model, data)
    meaning = understood(model, given=list(feeds.values())[:1])
    return [Probe.of(name, feed, meaning, required=True) for name, feed in feeds.items()]


def feeds_of(model: ir.Model, data: Data) -> dict[str, dict[str, np.ndarray]]:
    """Return a user's rows as arrays by input, in batches with a name each; else as `from_data`."""
    if isinstance(data, str | Path | Mapping):
        return _batches(model, _arrays(model, data))
    if not isinstance(data, Sequence):
        raise InputError(f"the data is of type {type(data).__name__}; give an array per input, or a list of such feeds")
    feeds = {f"data feed {number}": _feed(model, each, number) for number, each in enumerate(data, 1)}
    if not feeds:
        raise InputError("the data is an empty list; give an array per input, or a list of such feeds")
    return feeds


def of_files(paths: Sequence[Path]) -> Data | None:
    """Return what is meant by files that are named one by one: rows by one, whole feeds by several, nothing by none."""
    return paths[0] if len(paths) == 1 else list(paths) or None


def read(data: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arrays of an ``.npz`` file, or those given.

    Raises:
        InputError: If the file is missing or broken.
    """
    if isinstance(data, Mapping):
        return data
    if Path(data).is_file() and not zipfile.is_zipfile(data):
        raise InputError(f"cannot read rows from {data}: it is no .npz file; numpy.savez writes one of arrays by name")
    try:
        with Path(data).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error.strerror) if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise InputError(
            f"cannot read rows from {data}: {reason}; give an .npz file with an array per input"
        ) from error


def _arrays(model: ir.Model, data: str | Path | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return an array for each input, in its type."""
    given = read(data)
    missing = next((str(value.name) for value in model.graph.inputs if value.name not in given), None)
    if missing:
        names = ", ".join(given) or "none"
        raise InputError(f"the data has no array '{missing}', which the model takes; it has {names}")
    return {str(value.name): _fitting(value, given[str(value.name)]) for value in model.graph.inputs}


def _feed(model: ir.Model, data: str | Path | Mapping[str, Any], number: int) -> dict[str, np.ndarray]:
    """Return one feed, taken as it is."""
    with located(str(data) if isinstance(data, str | Path) else f"data feed {number}"):
        arrays = _arrays(model, data)
        _check_sizes(model.graph.inputs, [], arrays)
    return arrays


def _batches(model: ir.Model, arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return feeds by name: the rows in batches, or all at once where inputs share no axis of rows."""
    inputs = list(model.graph.inputs)
    by_row = [value for value in inputs if fixed_size(value, 0) is None and arrays[str(value.name)].ndim]
    by_row = by_row or [value for value in inputs if arrays[str(value.name)].ndim]
    if not _share_rows(by_row, arrays):
        _check_sizes(inputs, [], arrays)
        return {"data feed 1": arrays}
    fixed = fixed_size(by_row[0], 0)
    number = _number_of_rows(by_row, arrays, fixed)
    _check_sizes(inputs, by_row, arrays)
    step = fixed or _DATA_BATCH
    feeds = {}
    for start in range(0, number, step):
        part = {str(value.name): arrays[str(value.name)][start : start + step] for value in by_row}
        feeds[f"data row {start}"] = arrays | part
    return feeds


def _share_rows(by_row: Sequence[ir.Value], arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether the first axes of inputs are one: they are as long, or the file calls them the same."""
    if not by_row:
        return False
    first = [next(iter(value.shape or ()), None) for value in by_row]
    names = {dim.value if isinstance(dim, ir.SymbolicDim) else dim for dim in first}
    return len({len(arrays[str(value.name)]) for value in by_row}) == 1 or (len(names) == 1 and None not in names)


def _fitting(value: ir.Value, given: Any) -> np.ndarray:
    """Return the array given for an input in the input's type, refusing one whose numbers or rank do not fit."""
    what = f"the data's array '{value.name}'"
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InputError(f"{what} has rows of different lengths; pad them to one length") from error
    dtype = dtype_of(value)
    if dtype.kind not in "biuf":
        raise InputError(f"input '{value.name}' is of type {value.dtype}; models of numbers only can be proved")
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InputError(f"{what} is of type {array.dtype}, the input takes {dtype}; give it in that type")
    if value.shape is not None and array.ndim != len(value.shape):
        raise InputError(f"{what} has rank {array.ndim}, the input has rank {len(value.shape)}: {value.shape}")
    with np.errstate(over="ignore"):
        cast = array.astype(dtype, copy=False)
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        raise InputError(f"{what} holds numbers that do not fit into the input's type, {dtype}")
    return cast


def _number_of_rows(by_row: Sequence[ir.Value], arrays: Mapping[str, np.ndarray], step: int | None) -> int:
    """Return how many rows there are, which must be a multiple of the fixed batch size `step` if there is one."""
    rows = {str(value.name): len(array) if (array := arrays[str(value.name)]).ndim else 0 for value in by_row}
    number = max(rows.values())
    if set(rows.values()) != {number} or not number:
        counts = ", ".join(f"'{name}' {count}" for name, count in rows.items())
        raise InputError(
            f"the data's arrays differ in rows, or have none: {counts}; give as many of each, at least one, or whole "
            "feeds: --data again for each file, in Python a list"
        )
    if step and number % step:
        raise InputError(f"the data has {number} rows; the model takes {step} at a time, so give a multiple of that")
    return number


def _check_sizes(inputs: Sequence[ir.Value], by_row: Sequence[ir.Value], arrays: Mapping[str, np.ndarray]) -> None:
    for value in inputs:
        array = arrays[str(value.name)]
        first = 1 if any(value is other for other in by_row) else 0
        for axis in range(first, array.ndim):
            size = fixed_size(value, axis)
            if size is not None and array.shape[axis] != size:
                raise InputError(
                    f"the data's array '{value.name}' has size {array.shape[axis]} on axis {axis}, "
                    f"the input is fixed at {size}: {value.shape}"
                )
