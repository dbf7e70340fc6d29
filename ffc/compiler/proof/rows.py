"""Probes from rows of a user's own."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.probes import Probe, understood
from ffc.compiler.proof.probing.inputs import dtype_of, fixed_size
from ffc.compiler.proof.texts import BATCH, Choose, text_feeds
from ffc.errors import InputError, UsageError, located, one_line
from ffc.graph.execute import Runner
from ffc.graph.files import ModelLike, path_of
from ffc.rows import text_rows
from ffc.rows.records import SUFFIXES
from ffc.rows.text_rows import TextRows

__all__ = ["Data", "feeds_of", "from_data", "of_files", "read", "settled"]

_FORMS = f"give an .npz file with an array per input, or text that ends with {', '.join(SUFFIXES)}"

_Arrays = str | Path | Mapping[str, Any]

Data = _Arrays | TextRows | Sequence[_Arrays | TextRows]
"""Rows: arrays by input or an ``.npz`` file with them, `TextRows` or the name of their file; or a list of such.

Arrays in a list are one whole feed each.
"""


def from_data(
    model: ir.Model, data: Data, *, choose: Choose | None = None, tell: Callable[[str], None] = lambda line: None
) -> list[Probe]:
    """Make probes from a user's rows; a model must run on each of them.

    Args:
        model: The model.
        data: An array per input, rows first, or the path of an ``.npz`` file with them. An input whose first dimension
            is fixed while that of others is not is the same for all rows. A list of such is taken as it is, each one
            feed, and so are arrays of inputs that share no axis of rows. Or `TextRows`, or the path of their file.
        choose: Which rows of text to take, in the place of those that `TextRows` asks for.
        tell: Called with a line on what was taken, and on what was not.

    Raises:
        InputError: If a file is missing or broken, or an input has no array or one of another type, rank, size or
            number of rows; of rows of text, as `text_feeds` says.
    """
    feeds = feeds_of(model, data, choose=choose, tell=tell)
    meaning = understood(model, given=list(feeds.values())[:1])
    return [Probe.of(name, feed, meaning, required=True) for name, feed in feeds.items()]


def feeds_of(
    model: ir.Model,
    data: Data,
    *,
    runner: Runner | None = None,
    choose: Choose | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, np.ndarray]]:
    """Return a user's rows as arrays by input, in batches with a name each, by `runner` where text needs one.

    All else is as for `from_data`.
    """
    if isinstance(data, str | Path | Mapping | TextRows):
        one = _meant(data)
        if isinstance(one, TextRows):
            return text_feeds(model, one, runner=runner, choose=choose, tell=tell)
        return _batches(model, _arrays(model, one, tell))
    if not isinstance(data, Sequence):
        raise InputError(f"the data is of type {type(data).__name__}; give an array per input, or a list of such feeds")
    feeds: dict[str, dict[str, np.ndarray]] = {}
    for number, each in enumerate(data, 1):
        one = _meant(each)
        if isinstance(one, TextRows):
            found = text_feeds(model, one, runner=runner, choose=choose, tell=tell)
            feeds |= {f"data {number}{name.removeprefix('data')}": feed for name, feed in found.items()}
        else:
            feeds[f"data feed {number}"] = _feed(model, one, number, tell)
    if not feeds:
        raise InputError("the data is an empty list; give an array per input, or a list of such feeds")
    return feeds


def settled(data: Data, model: ModelLike | None) -> Data:
    """Return data of which rows of text know their columns and tokenizer; what is missing is told before any work.

    Args:
        data: The data.
        model: The model that they are for; beside its file lies the tokenizer, if none is named.

    Raises:
        MissingError, UsageError, InputError: As `ffc.rows.text_rows.settled` says.
        InputError: If a file is neither rows of text nor an archive of arrays.
    """
    place = None if model is None else path_of(model)

    def one(given: _Arrays | TextRows) -> _Arrays | TextRows:
        meant = _meant(given)
        if isinstance(meant, TextRows):
            return text_rows.settled(meant, place)
        _check_archive(meant)
        return meant

    if isinstance(data, str | Path | Mapping | TextRows):
        return one(data)
    return [one(each) for each in data] if isinstance(data, Sequence) else data


def of_files(
    paths: Sequence[Path],
    text: Sequence[str] = (),
    tokenizer: str | Path | None = None,
    max_length: int | None = None,
    rows: int | None = None,
) -> Data | None:
    """Return what is meant by files that are named one by one, and by how rows of text in them are read.

    Args:
        paths: Rows by one, whole feeds by several files of arrays, nothing by none.
        text: The columns of rows of text, as `TextRows` has them; so are the others.
        tokenizer: Their tokenizer.
        max_length: Tokens a row at most.
        rows: Rows to take at most.

    Raises:
        UsageError: If it is said how to read rows of text, and there are none.
    """
    said = {"text": text or None, "tokenizer": tokenizer, "max_length": max_length, "rows": rows}
    idle = next((name for name, value in said.items() if value is not None), None)
    if idle is not None and not any(map(text_rows.is_text, paths)):
        raise UsageError(
            f"'{idle}' says how rows of text are read, and there are none; give them as data, a file that ends with "
            f"{', '.join(SUFFIXES)}"
        )
    found = [TextRows(path, text, tokenizer, max_length, rows) if text_rows.is_text(path) else path for path in paths]
    return found[0] if len(found) == 1 else found or None


def _meant(data: _Arrays | TextRows) -> _Arrays | TextRows:
    """Return rows of text for the path of a file of them; anything else as it is."""
    return TextRows(data) if isinstance(data, str | Path) and text_rows.is_text(data) else data


def read(data: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arrays of an ``.npz`` file, or those given.

    Raises:
        InputError: If the file is missing or broken.
    """
    if isinstance(data, Mapping):
        return data
    _check_archive(data)
    try:
        with Path(data).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error.strerror) if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise InputError(f"cannot read rows from {data}: {reason}; {_FORMS}") from error


def _check_archive(data: _Arrays) -> None:
    """Refuse what is not there, a folder, and a file that is neither rows of text nor an archive of arrays."""
    if not isinstance(data, str | Path):
        return
    if os.path.isdir(data) or not os.path.exists(data):  # whatever text it is, be it too long for a name
        reason = "it is a folder" if os.path.isdir(data) else "no such file"
        raise InputError(f"cannot read rows from {data}: {reason}; {_FORMS}")
    if Path(data).is_file() and not zipfile.is_zipfile(data):
        raise InputError(
            f"cannot read rows from {data}: it is no .npz file; numpy.savez writes one of arrays by name, and rows of "
            f"text end with {', '.join(SUFFIXES)}"
        )


def _arrays(
    model: ir.Model, data: str | Path | Mapping[str, Any], tell: Callable[[str], None]
) -> dict[str, np.ndarray]:
    """Return an array for each input, in its type, and tell of those that no input takes."""
    given = read(data)
    missing = next((str(value.name) for value in model.graph.inputs if value.name not in given), None)
    if missing:
        names = ", ".join(given) or "none"
        raise InputError(f"the data has no array '{missing}', which the model takes; it has {names}")
    arrays = {str(value.name): _fitting(value, given[str(value.name)]) for value in model.graph.inputs}
    if surplus := [f"'{name}'" for name in given if name not in arrays]:
        what = "the data" if isinstance(data, Mapping) else data
        tell(one_line(f"{what}: no input of the model takes {', '.join(surplus)}"))
    return arrays


def _feed(
    model: ir.Model, data: str | Path | Mapping[str, Any], number: int, tell: Callable[[str], None]
) -> dict[str, np.ndarray]:
    """Return one feed, taken as it is."""
    with located(str(data) if isinstance(data, str | Path) else f"data feed {number}"):
        arrays = _arrays(model, data, tell)
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
    step = fixed or BATCH
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
