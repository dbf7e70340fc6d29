"""Contracts: what a pass promises about outputs, what they are held against, and the verdict on what was measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

__all__ = ["Budget", "Contract", "Equal", "EqualToMasked", "KnownRows", "ModelBefore", "ModelFrom", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """What the proof of one step measured, over all probes and outputs.

    Attributes:
        contract: What was promised, in words.
        difference: Largest difference, relative to the scale of its output.
        cosine: Least mean cosine of an output's vectors.
        agreement: Share of rows of two-dimensional outputs whose largest entry stayed the largest, or None without
            such outputs.
        probes: Number of inputs compared.
        worst: The probe and output with the largest difference.
    """

    contract: str
    difference: float
    cosine: float
    agreement: float | None
    probes: int
    worst: str


@dataclass(frozen=True)
class ModelBefore:
    """Holds a result against the model before the pass."""

    name: ClassVar[str] = ""


@dataclass(frozen=True)
class ModelFrom:
    """Holds a result against a model made from the one before.

    Attributes:
        make: Takes the model before and returns another: a clone of it that was changed, or one from elsewhere.
        name: What reports call it.
    """

    make: Callable[[ir.Model], ir.Model]
    name: str


@dataclass(frozen=True)
class KnownRows:
    """Holds a result against outputs that are known for rows of inputs.

    Attributes:
        read: Takes the model before and returns an array for every input and for one output at least, by name, rows
            first.
        name: What reports call them.
    """

    read: Callable[[ir.Model], Mapping[str, np.ndarray]]
    name: str


Reference = ModelBefore | ModelFrom | KnownRows
"""What a contract holds a result against."""


class Contract(ABC):
    """What a pass promises about outputs.

    Attributes:
        spends: Whether outputs may move for good.
        advice: What can be done where the promise is broken, empty where nothing is known to help.
    """

    spends: ClassVar[bool] = False
    advice: str = ""

    @property
    def as_rounded(self) -> bool:
        """Whether, once numbers are rounded, it is held to what the models give, as one is that lets outputs move.

        Any other is held to what they mean in float32, since rounding amplifies harmless differences.
        """
        return self.spends

    @property
    def against(self) -> Reference:
        """What the result is held against."""
        return ModelBefore()

    @abstractmethod
    def fault(self, verdict: Verdict) -> str | None:
        """Say in what way the outputs that were measured break the promise, None if they keep it."""


@dataclass(frozen=True)
class Equal(Contract):
    """Outputs stay equal; `tolerance` is the largest difference relative to the scale of the output."""

    tolerance: float = 1e-4

    def __str__(self) -> str:
        return f"equal to {self.tolerance:g}"

    def fault(self, verdict: Verdict) -> str | None:
        """See `Contract.fault`."""
        if verdict.difference <= self.tolerance:
            return None
        return f"outputs differ by {verdict.difference:.3g} of their scale, more than {self.tolerance:g},"


@dataclass(frozen=True)
class EqualToMasked(Equal):
    """Outputs equal those of the model before with the parts that the pass drops set to zero.

    Attributes:
        masked: Takes the model before and returns a clone of it with these parts set to zero.
    """

    masked: Callable[[ir.Model], ir.Model] = field(kw_only=True)

    def __str__(self) -> str:
        return f"equal to {self.against.name} to {self.tolerance:g}"

    @property
    def against(self) -> ModelFrom:
        """The masked model."""
        return ModelFrom(self.masked, "the masked model")


@dataclass(frozen=True)
class Budget(Contract):
    """Outputs may move, within a budget.

    Attributes:
        cosine: Least mean cosine between output vectors before and after.
        agreement: Least share of rows whose largest output stays the largest; checked on two-dimensional outputs.
        against: What outputs are held against.
        advice: As in `Contract`.
    """

    spends: ClassVar[bool] = True

    cosine: float
    agreement: float = 0.0
    against: Reference = ModelBefore()
    advice: str = ""

    def __str__(self) -> str:
        agreement = f", agreement ≥ {self.agreement:g}" if self.agreement else ""
        return f"cosine ≥ {self.cosine:g}{agreement}{self._against}"

    @property
    def _against(self) -> str:
        return f" against {self.against.name}" if self.against.name else ""

    def fault(self, verdict: Verdict) -> str | None:
        """See `Contract.fault`."""
        if verdict.difference == float("inf"):  # however many other rows are close
            return f"outputs cannot be compared{self._against}"
        if not verdict.cosine >= self.cosine:
            return f"mean cosine {verdict.cosine:.4f} is below the budget of {self.cosine:g}{self._against}"
        if verdict.agreement is not None and not verdict.agreement >= self.agreement:
            return f"agreement {verdict.agreement:.4f} is below the budget of {self.agreement:g}{self._against}"
        return None
