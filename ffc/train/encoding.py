"""Examples as token ids, and batches of them as tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from ffc.errors import CannotApplyError, InputError, UsageError
from ffc.train.tasks.base import Example

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

__all__ = ["Collator", "Row", "Rows", "encode"]

Row = dict[str, Any]
"""One encoded example: a list of ints per column, or an int; see `Rows`."""

_CHUNK = 1000
"""How many examples the tokenizer gets at once: it keeps several times the memory of a row while at it."""


class Rows(Dataset[Row]):
    """Encoded examples, in their order; what `ffc.train` trains, scores and measures on.

    Each row is a dict: ``input_ids``, ``attention_mask`` and, where the tokenizer makes them, ``token_type_ids``, lists
    of one length, without padding; ``index``, the row number; ``labels``, the label, where every example has one;
    ``spans``, a list of [start, end) in tokens, where the task has spans, and (0, 0) for one that was cut off.

    Attributes:
        examples: What was encoded.
        max_length: The number of tokens that no row exceeds.
    """

    def __init__(self, rows: Sequence[Row], examples: Sequence[Example], max_length: int) -> None:
        self._rows = list(rows)
        self.examples = tuple(examples)
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each row, special ones included."""
        return [len(row["input_ids"]) for row in self._rows]


def encode(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int = 128) -> Rows:
    """Turn examples into token ids.

    Args:
        examples: Single texts or pairs, one or the other throughout, and with the same number of spans.
        tokenizer: The model's. One in Python alone will do, except for spans.
        max_length: The number of tokens, special ones included, to cut to; the longer part of a pair is cut first, at
            its end, and a first text with a tail before that tail.

    Returns:
        The rows, in the order of the examples.

    Raises:
        UsageError: If `max_length` leaves no room for text.
        InputError: If the examples are a mixture.
        CannotApplyError: If the examples have spans and the tokenizer cannot say which characters a token covers.
    """
    pairs, spans = _shape(examples)
    if spans and not tokenizer.is_fast:
        raise CannotApplyError(
            f"{type(tokenizer).__name__} cannot tell which characters a token covers, which rows with spans need; load "
            "the fast tokenizer of this model"
        )
    special = tokenizer.num_special_tokens_to_add(pair=pairs)
    least = special + 1 + pairs
    if max_length < least:
        raise UsageError(
            f"max_length={max_length} leaves no room for text beside {special} special tokens; give {least}"
        )
    labelled = all(example.label is not None for example in examples)
    rows: list[Row] = []
    for start in range(0, len(examples), _CHUNK):
        rows += _encode_chunk(examples[start : start + _CHUNK], start, tokenizer, max_length, labelled)
    return Rows(rows, examples, max_length)


def _encode_chunk(
    examples: Sequence[Example], start: int, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
) -> list[Row]:
    """Encode examples of one shape, the first of which is row `start`."""
    pairs, spans = examples[0].second is not None, bool(examples[0].spans)
    encoded = tokenizer(
        _firsts(examples, tokenizer, max_length),
        [str(example.second) for example in examples] if pairs else None,
        truncation="longest_first",
        max_length=max_length,
        padding=False,
        return_attention_mask=True,
        return_offsets_mapping=spans,
    )
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded]
    rows = []
    for place, example in enumerate(examples):
        row: Row = {name: encoded[name][place] for name in names} | {"index": start + place}
        if labelled:
            row["labels"] = example.label
        if spans:
            row["spans"] = _token_spans(encoded, place, example)
        rows.append(row)
    return rows


def _firsts(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[str]:
    """Return the first texts; of those too long with a tail, the words before the tail that there is room for.

    What is too long even so, the tokenizer cuts at the end.
    """
    firsts = [example.first for example in examples]
    heads = {
        place: example.first[: len(example.first) - example.tail]
        for place, example in enumerate(examples)
        if example.tail
    }

    def too_long(places: Sequence[int]) -> list[bool]:
        pairs = [str(examples[place].second) for place in places] if examples[0].second is not None else None
        encoded = tokenizer([firsts[place] for place in places], pairs, return_attention_mask=False, verbose=False)
        return [len(ids) > max_length for ids in encoded["input_ids"]]

    def kept(place: int, words: int) -> str:
        end = ends[place][words - 1] if words else 0
        return f"{heads[place][:end]} {examples[place].first[len(heads[place]) :]}".lstrip()

    long = [place for place, over in zip(heads, too_long(list(heads)), strict=True) if over] if heads else []
    ends = {place: [word.end() for word in re.finditer(r"\S+", heads[place])] for place in long}
    # Bisection, of all rows at once: `fits` words have room (or there is room for none), `over` have not.
    fits, over = dict.fromkeys(long, 0), {place: len(ends[place]) for place in long}
    while searched := [place for place in long if over[place] - fits[place] > 1]:
        middle = {place: (fits[place] + over[place]) // 2 for place in searched}
        for place in searched:
            firsts[place] = kept(place, middle[place])
        for place, beyond in zip(searched, too_long(searched), strict=True):
            (over if beyond else fits)[place] = middle[place]
    for place in long:
        firsts[place] = kept(place, fits[place])
    return firsts


@dataclass(frozen=True)
class Collator:
    """Makes a batch of rows: int64 tensors, padded to the longest row on the side that the tokenizer pads.

    The columns of `Rows` come as ``input_ids``, ``attention_mask`` and ``token_type_ids`` [batch, length], ``labels``
    and ``index`` [batch], and ``spans`` [batch, spans, 2], which padding on the left moves along. A column that rows
    were given besides is stacked as it is.

    Attributes:
        tokenizer: Gives the padding id and side.
        pad_to: Pad to this length instead.
    """

    tokenizer: PreTrainedTokenizerBase
    pad_to: int | None = None

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return the batch.

        Raises:
            UsageError: If a row is longer than `pad_to`.
            CannotApplyError: If the tokenizer has no padding token.
        """
        longest = max(len(row["input_ids"]) for row in rows)
        length = longest if self.pad_to is None else self.pad_to
        if longest > length:
            raise UsageError(f"a row of {longest} tokens cannot be padded to {length}; encode with max_length={length}")
        padding = self._padding()
        batch = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            if name in padding:
                values = [self._padded(value, padding[name], length) for value in values]
            elif name == "spans":
                values = [self._moved(row, length) for row in rows]
            batch[name] = torch.tensor(values)
        return batch

    def _padding(self) -> Mapping[str, int]:
        pad = self.tokenizer.pad_token_id
        if not isinstance(pad, int):
            raise CannotApplyError(
                f"{type(self.tokenizer).__name__} has no padding token, which batches need; set its pad_token"
            )
        return {"input_ids": pad, "attention_mask": 0, "token_type_ids": int(self.tokenizer.pad_token_type_id)}

    def _padded(self, values: Sequence[int], pad: int, length: int) -> list[int]:
        fill = [pad] * (length - len(values))
        return [*fill, *values] if self._left else [*values, *fill]

    def _moved(self, row: Row, length: int) -> list[list[int]]:
        """Return the spans of a row where padding puts them; an empty one stays (0, 0)."""
        shift = length - len(row["input_ids"]) if self._left else 0
        return [[start + shift, end + shift] if end > start else [0, 0] for start, end in row["spans"]]

    @property
    def _left(self) -> bool:
        return bool(self.tokenizer.padding_side == "left")


def _shape(examples: Sequence[Example]) -> tuple[bool, int]:
    """Return whether the examples are pairs, and how many spans each has."""
    if not examples:
        return False, 0
    pairs, spans = examples[0].second is not None, len(examples[0].spans)
    for row, example in enumerate(examples):
        if (example.second is not None) != pairs:
            raise InputError(f"row {row} is {'a single text' if pairs else 'a pair'} and row 0 is not; keep them apart")
        if len(example.spans) != spans:
            raise InputError(
                f"row {row} has {len(example.spans)} spans and row 0 has {spans}; give all the same number"
            )
    return pairs, spans


def _token_spans(encoded: BatchEncoding, row: int, example: Example) -> list[list[int]]:
    """Return [start, end) in tokens of each span: the tokens of its part that share a character with it."""
    parts, offsets = encoded.sequence_ids(row), encoded["offset_mapping"][row]
    spans = []
    for part, start, end in example.spans:
        inside = [
            token
            for token, (begin, stop) in enumerate(offsets)
            if parts[token] == part and begin < end and stop > start and begin < stop
        ]
        spans.append([inside[0], inside[-1] + 1] if inside else [0, 0])
    return spans
