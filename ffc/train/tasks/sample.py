"""Splits and samples of rows that depend on the seed alone and never part what belongs together."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from ffc.errors import InputError, UsageError
from ffc.train.tasks.base import Example, Unit

__all__ = ["split", "take"]


def split(units: Sequence[Unit], share: float, seed: int) -> tuple[tuple[Unit, ...], tuple[Unit, ...]]:
    """Split the records of a training file in two.

    Records with the same text (a passage asked about twice, a sentence given twice) stay on one side. Texts are taken
    in the order of a hash of seed and text, so the split depends neither on the order of the file nor on the machine.

    Args:
        units: The records.
        share: Which share of the examples to set apart for validation, in (0, 1).
        seed: Another seed gives another split.

    Returns:
        The records to train on and those to validate on, each in the order of the file. Validation has as many examples
        as can be had without going over the share; at least one text.

    Raises:
        UsageError: If the share is not in (0, 1).
        InputError: If there are not two different texts.
    """
    if not 0 < share < 1:
        raise UsageError(f"validation_share={share} is not in (0, 1); give a share such as 0.1")
    sizes: dict[str, int] = defaultdict(int)
    for unit in units:
        sizes[unit.text] += len(unit.examples)
    if len(sizes) < 2:
        raise InputError(
            f"{units[0].where}: all rows are on the same text, so that no validation rows can be set apart from them; "
            "give a validation file"
        )
    room = min(round(share * sum(sizes.values())), sum(sizes.values()) - 1)
    chosen = set()
    for text in sorted(sizes, key=lambda text: _hash(seed, text)):
        if sizes[text] <= room:
            chosen.add(text)
            room -= sizes[text]
    chosen = chosen or {min(sizes, key=lambda text: (sizes[text], _hash(seed, text)))}
    train = tuple(unit for unit in units if unit.text not in chosen)
    return train, tuple(unit for unit in units if unit.text in chosen)


def take(examples: Sequence[Example], rows: int | None, seed: int) -> tuple[Example, ...]:
    """Take a sample of examples, in their order.

    Args:
        examples: Where to take from.
        rows: How many; None for all. The rows of a question come together, so the last one may bring a few more.
        seed: Another seed gives another sample; with the same seed a larger sample holds the smaller.

    Raises:
        UsageError: If the number is below one.
    """
    if rows is None:
        return tuple(examples)
    if rows < 1:
        raise UsageError(f"a sample of {rows} rows was asked for; give at least 1, or none to take all")
    groups: dict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        groups[example.group or f"row {place}"].append(place)
    chosen: list[int] = []
    for group in sorted(groups, key=lambda group: _hash(seed, group)):
        if len(chosen) >= rows:
            break
        chosen += groups[group]
    return tuple(examples[place] for place in sorted(chosen))


def _hash(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed} {text}".encode()).digest()
