"""Which activation a student has in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ffc.settings.setting import SettingError, check, setting
from ffc.settings.wanted import ANY, SHARE

__all__ = ["Activation"]


@dataclass(frozen=True)
class Activation:
    """Another activation than the teacher's, at once or gradually."""

    activation: Literal["relu"] | None = setting(ANY, "Put ReLU in the place of GELU.", default=None)
    anneal: float | None = setting(
        SHARE, "Go over to it gradually, in this share of the steps.", metavar="SHARE", default=None
    )

    def __post_init__(self) -> None:
        check(self)
        if self.anneal is not None and self.activation is None:
            raise SettingError("{} is for a change of activation; give {} too", "anneal", "activation")
