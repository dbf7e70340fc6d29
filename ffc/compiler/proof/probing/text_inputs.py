"""What a tokenizer fills the inputs of a model with: ids, their types, and masks in the form that the model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.probing.inputs import dtype_of, table_rows
from ffc.compiler.proof.probing.layout import Layout
from ffc.compiler.proof.probing.mask_inputs import Form, MaskInput
from ffc.compiler.proof.probing.tower import Meaning
from ffc.errors import InputError
from ffc.rows.tokenizer import Batch

__all__ = ["TextInputs", "text_inputs"]

_IDS, _TYPES, _MASK = "input_ids", "token_type_ids", "attention_mask"
"""What transformers calls them, and so nearly everyone."""

_PAIR = 2
"""A table of so many rows is for the texts of a pair: places of tokens need more."""

_INSTEAD = "give rows as an .npz file with an array per input"


@dataclass(frozen=True)
class TextInputs:
    """How text goes into a model.

    Attributes:
        ids: The input that takes token ids, [B, S].
        types: The inputs that take which text of a pair a token is of, [B, S].
        masks: The inputs that say which tokens are real.
        layout: The dimensions of all.
        tables: For ids and types, the number of rows of the table that they look up, where that is known.
    """

    ids: str
    types: tuple[str, ...]
    masks: tuple[MaskInput, ...]
    layout: Layout
    tables: Mapping[str, int]
    _dtypes: Mapping[str, np.dtype]

    @property
    def batch(self) -> int | None:
        """The number of rows that the model takes at a time, None where that is free.

        A mask that is the same for all rows says nothing of padding in one of them, so there it is 1.
        """
        fixed = self._fixed(0)
        return 1 if fixed is None and not all(mask.by_row for mask in self.masks) else fixed

    @property
    def length(self) -> int | None:
        """The number of tokens that the model takes, None where that is free."""
        return self._fixed(1)

    def feeds(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return an array for each input.

        Raises:
            InputError: If a mask cannot say where the padding is.
        """
        sizes = self.layout.sizes(*batch.ids.shape)
        found = {self.ids: batch.ids} | dict.fromkeys(self.types, batch.types)
        for mask in self.masks:
            shape = self.layout.shape(mask.name, sizes) or batch.mask.shape
            array = mask.write(batch.mask, shape, self._dtypes[mask.name])
            if not np.array_equal(mask.read(array, *batch.mask.shape), batch.mask):
                raise InputError(
                    f"input '{mask.name}' says {mask.form.value} of the tokens, which cannot tell where this tokenizer "
                    f"pads; {_INSTEAD}"
                )
            found[mask.name] = array
        return {name: array.astype(self._dtypes[name], copy=False) for name, array in found.items()}

    def _fixed(self, axis: int) -> int | None:
        """Return the size of an axis of the ids that does not follow what is asked for."""
        sizes = [self.layout.shape(self.ids, self.layout.sizes(*asked)) for asked in ((5, 7), (6, 8))]
        return sizes[0][axis] if sizes[0] and sizes[0][axis] == sizes[1][axis] else None


def text_inputs(model: ir.Model, meaning: Meaning) -> TextInputs:
    """Find out which inputs take what a tokenizer makes of text: by the usual names, else by what they look up.

    Args:
        model: The model.
        meaning: What its inputs mean.

    Raises:
        InputError: If there is an input that text cannot fill; the message names it.
    """
    inputs = {str(value.name): value for value in model.graph.inputs}
    masks = dict(meaning.mask_inputs)
    if _MASK in inputs and _MASK not in masks:  # which the model does not heed
        masks[_MASK] = MaskInput(_MASK, Form.KEPT)
    holders = {name: value for name, value in inputs.items() if name not in masks and _may_hold(value)}
    tables = {name: rows for name, value in holders.items() if (rows := table_rows(value)) is not None}
    ids = _ids(holders, tables)
    types = _types([name for name in holders if name != ids], tables)
    for name in inputs:
        if name not in (ids, *types, *masks):
            raise InputError(
                f"input '{name}' cannot be filled from text: it takes neither ids of tokens, nor their types, nor "
                f"which are real; {_INSTEAD}"
            )
    dtypes = {name: dtype_of(value) for name, value in inputs.items()}
    return TextInputs(ids, types, tuple(masks.values()), meaning.layout, tables, dtypes)


def _may_hold(value: ir.Value) -> bool:
    """Whether an input may hold a whole number for each token."""
    return (value.shape is None or len(value.shape) == 2) and dtype_of(value).kind in "iu"


def _ids(holders: Mapping[str, ir.Value], tables: Mapping[str, int]) -> str:
    """Return the input that takes token ids: the one called so, or the one that looks up the largest table."""
    if _IDS in holders:
        return _IDS
    largest = [name for name, rows in tables.items() if rows == max(tables.values())]
    if len(largest) != 1:
        found = f"'{largest[0]}' and '{largest[1]}' may both take them" if largest else "none looks up a table"
        raise InputError(f"rows of text need an input for ids of tokens, [rows, tokens], and {found}; {_INSTEAD}")
    return largest[0]


def _types(others: Sequence[str], tables: Mapping[str, int]) -> tuple[str, ...]:
    """Return the input, if there is one, that takes types: the one called so, or the only one with a table of two."""
    if _TYPES in others:
        return (_TYPES,)
    able = [name for name in others if tables.get(name) == _PAIR]
    return tuple(able) if len(able) == 1 else ()
