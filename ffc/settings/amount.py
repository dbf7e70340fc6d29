"""How much of a model to keep."""

from __future__ import annotations

from dataclasses import dataclass

from ffc.settings.setting import SettingError, Wanted, check, setting
from ffc.settings.wanted import AMOUNT, COUNT, SHARE

__all__ = ["LENGTH", "Amount", "Kept"]

LENGTH = 128
"""Tokens of the row that multiply-accumulates are counted for."""


@dataclass(frozen=True)
class Kept:
    """How much to keep: of heads and units, or in their place of the work; None keeps all."""

    heads: int | float | None = setting(
        AMOUNT, "Heads that each layer keeps: a count or a share.", metavar="N|R", default=None
    )
    ffn: int | float | None = setting(
        AMOUNT, "Feed-forward units that each layer keeps: a count or a share.", metavar="N|R", default=None
    )
    macs: float | None = setting(
        SHARE,
        "The share of all layers' multiply-accumulates that the result may cost.",
        metavar="R",
        default=None,
    )
    floor: int | float | None = setting(
        AMOUNT,
        "What every layer keeps at least where layers may differ.  [default: 1]",
        metavar="N|R",
        default=None,
    )


@dataclass(frozen=True)
class Amount(Kept):
    """How much to keep, and how it is shared out: of each layer, over all layers, or by what it costs.

    Raises:
        SettingError: If nothing is said, or things that contradict each other.
    """

    across: bool = setting(
        Wanted("true or false"), "Take --heads and --ffn of all layers together.", option="global", default=False
    )
    length: int = setting(
        COUNT, "Count multiply-accumulates for rows of this length.", metavar="TOKENS", default=LENGTH
    )

    def __post_init__(self) -> None:
        """Refuse what says nothing, or two things."""
        check(self)
        parts = self.heads is not None or self.ffn is not None
        if not parts and self.macs is None:
            text = "this would keep everything; say how much to keep by {}, {} or {}"
            raise SettingError(text, "heads", "ffn", "macs")
        if parts and self.macs is not None:
            text = "{} says how much to keep of all together; leave {} and {} out, or {}"
            raise SettingError(text, "macs", "heads", "ffn", "macs")
        if self.across and self.macs is not None:
            raise SettingError("{} chooses among all layers already; leave {} out", "macs", "across")
        if self.floor is not None and not self.across and self.macs is None:
            text = "{} is for {} and {}; otherwise every layer keeps {} and {}"
            raise SettingError(text, "floor", "across", "macs", "heads", "ffn")
