"""Splits and samples of rows that depend on the seed alone and never part what belongs together."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from ffc.errors import InputError
from ffc.train.tasks.base import Example, Unit

__all__ = ["split", "take"]


def split(units: Sequence[Unit], share: float, seed: int) -> tuple[tuple[Unit, ...], tuple[Unit, ...]]:
    """Split the records of a training file in two.

    Records that share one of their `Unit.texts` (a passage asked about twice, a sentence compared with two others) stay
    on one side. They are taken in the order of a hash of seed and text, so the split depends neither on the order of
    the file nor on the machine.

    Args:
        units: The records.
        share: Which share of the examples to set apart for validation, in (0, 1).
        seed: Another seed gives another split.

    Returns:
        The records to train on and those to validate on, each in the order of the file. What would bring validation
        over the share is passed over; at least one text is in it.

    Raises:
        InputError: If there are not two different texts.
    """
    together = _together(units)
    if len(together) < 2:
        raise InputError(
            f"{units[0].where}: all rows are on the same text, so that no validation rows can be set apart from them; "
            "give a validation file"
        )
    sizes = {first: sum(len(units[place].examples) for place in places) for first, places in together.items()}
    order = {
        first: min(_hash(seed, text) for place in places for text in units[place].texts)
        for first, places in together.items()
    }
    room = min(round(share * sum(sizes.values())), sum(sizes.values()) - 1)
    chosen = set()
    for first in sorted(together, key=order.__getitem__):
        if sizes[first] <= room:
            chosen.add(first)
            room -= sizes[first]
    chosen = chosen or {min(together, key=lambda first: (sizes[first], order[first]))}
    apart = {place for first in chosen for place in together[first]}
    train = tuple(unit for place, unit in enumerate(units) if place not in apart)
    return train, tuple(units[place] for place in sorted(apart))


def _together(units: Sequence[Unit]) -> dict[int, list[int]]:
    """Return the numbers of records that share texts, directly or by way of others, by the first of them."""
    leads = list(range(len(units)))

    def lead(place: int) -> int:
        while leads[place] != place:
            leads[place] = place = leads[leads[place]]
        return place

    seen: dict[str, int] = {}
    for place, unit in enumerate(units):
        for text in unit.texts:
            one, other = lead(seen.setdefault(text, place)), lead(place)
            leads[max(one, other)] = min(one, other)
    together: dict[int, list[int]] = defaultdict(list)
    for place in range(len(units)):
        together[lead(place)].append(place)
    return together


def take(examples: Sequence[Example], rows: int | None, seed: int) -> tuple[Example, ...]:
    """Take a sample of examples, in their order.

    Args:
        examples: Where to take from.
        rows: How many; None for all. The rows of a question come together, so the last one may bring a few more.
        seed: Another seed gives another sample; with the same seed a larger sample holds the smaller.
    """
    if rows is None:
        return tuple(examples)
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
