"""What is wanted of settings, in words and as a condition."""

from __future__ import annotations

from typing import Any

from ffc.settings.setting import Wanted

__all__ = [
    "AGREEMENT", "AMOUNT", "ANY", "COLUMN", "COLUMNS", "COSINE", "COUNT", "FILE", "FOLDER", "FROM_0", "LABELS", "MODEL",
    "PATH", "PATHS", "POSITIVE", "SEED", "SHARE",
]  # fmt: skip


def _is_amount(value: int | float) -> bool:
    return value >= 1 if isinstance(value, int) else 0 < value <= 1


def _are_texts(value: Any) -> bool:
    return all(value) if isinstance(value, list | tuple) else bool(value)


ANY = Wanted()
"""For a choice of words, which speaks for itself."""

COUNT = Wanted("a whole number from 1", lambda value: value >= 1)
FROM_0 = Wanted("a number from 0", lambda value: value >= 0)
POSITIVE = Wanted("a number above 0", lambda value: value > 0)
SHARE = Wanted("a number above 0 and up to 1", lambda value: 0 < value <= 1)
AMOUNT = Wanted("a count such as 6 or a share such as 0.5", _is_amount)
COSINE = Wanted("a number from -1 to 1", lambda value: -1 <= value <= 1)
AGREEMENT = Wanted("a share from 0 to 1", lambda value: 0 <= value <= 1)
SEED = Wanted("a whole number from 0 to 4294967295", lambda value: 0 <= value < 1 << 32)  # what numpy takes

FILE = Wanted("the path of a file", bool)
FOLDER = Wanted("the path of a folder", bool)
MODEL = Wanted("a folder, package:NAME, or a name on the hub", bool)
COLUMN = Wanted("the name of a column", bool)
COLUMNS = Wanted("the name of a column or a list of them", _are_texts)
LABELS = Wanted("a list of the labels, in the order of their numbers", _are_texts)
PATH = Wanted("a path", bool)
PATHS = Wanted("a path or a list of paths", _are_texts)
