"""What a student learns from, and how much of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from ffc.settings.setting import SettingError, Wanted, check, setting
from ffc.settings.wanted import COUNT, FROM_0, POSITIVE

__all__ = ["ON_A_TASK", "ON_LABELS", "ON_TEXTS", "WEIGHTS", "Losses"]

WEIGHTS = ("labels", "logits", "hidden", "attention", "relations")
"""The losses; what else there is to set says how they are taken."""

_PAIRS = Wanted(
    "pairs of a student's and a teacher's layer, such as [[0, 1], [1, 3]]",
    lambda value: all(len(pair) == 2 and min(pair) >= 0 for pair in value),
)


@dataclass(frozen=True)
class Losses:
    """The weights of the losses; one of weight 0 costs nothing.

    Attributes:
        labels: Cross-entropy with the labels.
        logits: Cross-entropy with the teacher's probabilities.
        hidden: Squared error of the embeddings' output and of the mapped layers' outputs, the mean of all of them; a
            projection is learned with the student where widths differ.
        attention: Divergence of the attention maps of the mapped layers, the mean of all of them; maps are averaged
            over heads where numbers of heads differ.
        relations: Divergence of the relations among queries, keys and values (MiniLM-v2), of the last mapped pair.
        temperature: Divides the logits of both in the loss `logits`.
        relation_heads: Into how many heads queries, keys and values are cut for `relations`.
        layers: (student layer, teacher layer) pairs; None spreads the student's evenly over the teacher's.
    """

    labels: float = setting(FROM_0, default=0.0)
    logits: float = setting(FROM_0, default=0.0)
    hidden: float = setting(FROM_0, default=0.0)
    attention: float = setting(FROM_0, default=0.0)
    relations: float = setting(FROM_0, default=0.0)
    temperature: float = setting(POSITIVE, default=1.0)
    relation_heads: int = setting(COUNT, default=12)
    layers: Sequence[tuple[int, int]] | None = setting(_PAIRS, default=None)

    def __post_init__(self) -> None:
        check(self)
        if not any(getattr(self, name) for name in WEIGHTS):
            raise SettingError(f"all losses have the weight 0; give one of {', '.join(WEIGHTS)} a weight")

    @property
    def inside(self) -> bool:
        """Whether a loss looks inside the models, at more than their logits."""
        return bool(self.hidden or self.attention or self.relations)

    @property
    def taught(self) -> bool:
        """Whether a loss needs a teacher."""
        return bool(self.logits or self.inside)

    @property
    def on_logits(self) -> bool:
        """Whether a loss is of what the head puts out."""
        return bool(self.labels or self.logits)

    def __str__(self) -> str:
        changed = (field.name for field in fields(self) if getattr(self, field.name) != field.default)
        return " ".join(f"{name}={getattr(self, name)}" for name in changed)


ON_LABELS = Losses(labels=1.0)
"""What a model is trained on without a teacher."""

ON_A_TASK = Losses(logits=1.0, hidden=0.1)
"""What a student learns from where nothing is said."""

ON_TEXTS = Losses(relations=1.0)
"""The same on plain text: needs neither a head of the teacher nor the same width or number of heads."""
