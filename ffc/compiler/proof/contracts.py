"""Contracts: what a pass promises about outputs, and the verdict that says what was measured of that."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Budget", "Contract", "Equal", "EqualToMasked", "Verdict"]


@dataclass(frozen=True)
class Equal:
    """Outputs stay equal; `tolerance` is the largest difference relative to the scale of the output."""

    tolerance: float = 1e-4

    def __str__(self) -> str:
        return f"equal to {self.tolerance:g}"


@dataclass(frozen=True)
class EqualToMasked(Equal):
    """Outputs equal those of the model before with the parts that the pass drops set to zero (`Pass.reference`)."""

    def __str__(self) -> str:
        return f"equal to the masked model to {self.tolerance:g}"


@dataclass(frozen=True)
class Budget:
    """Outputs may move, within a budget.

    Attributes:
        cosine: Least mean cosine between output vectors before and after.
        agreement: Least share of rows whose largest output stays the largest; checked on two-dimensional outputs.
        against: What outputs are held against, where that is not the model before the pass.
    """

    cosine: float
    agreement: float = 0.0
    against: str = ""

    def __str__(self) -> str:
        agreement = f", agreement ≥ {self.agreement:g}" if self.agreement else ""
        return f"cosine ≥ {self.cosine:g}{agreement}{f' against {self.against}' if self.against else ''}"


Contract = Equal | EqualToMasked | Budget


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
