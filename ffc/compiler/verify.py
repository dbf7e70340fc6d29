"""Proving a step: running the model before and after on the same inputs, and holding the difference to the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ffc.compiler.base import Budget, Contract
from ffc.compiler.probes import Probe
from ffc.compiler.report import Verdict
from ffc.errors import CannotApplyError, GateError, InputError
from ffc.graph.execute import Runner

__all__ = ["Outputs", "Prover", "measure"]

Outputs = list[dict[str, np.ndarray]]
"""What a model gives: for each probe, every output by name."""


@dataclass(frozen=True)
class _Distance:
    """How far one output moved on one probe."""

    difference: float
    cosine: float
    agreement: float | None
    rows: int


class Prover:
    """Runs models on a fixed set of probes."""

    def __init__(self, model: ir.Model, probes: Sequence[Probe]) -> None:
        """Run `model` twice on `probes`, leaving out those that it cannot take (too long for its positions, say).

        Raises:
            InputError: If it takes none of them, differs from itself, or gives no finite numbers.
        """
        runner = Runner(model)
        kept, outputs, reason = [], [], ""
        for probe in probes:
            try:
                first = runner.run(probe.feeds)
            except CannotApplyError as error:
                reason = str(error)
                continue
            second = runner.run(probe.feeds)
            _check_reference(probe, first, second)
            kept.append(probe)
            outputs.append(first)
        if not kept:
            raise InputError(f"the model runs on none of the inputs made for it: {reason}")
        self.probes = kept
        self.source = outputs

    def run(self, model: ir.Model) -> Outputs:
        """Run `model` on every probe."""
        runner = Runner(model)
        return [runner.run(probe.feeds) for probe in self.probes]

    def judge(self, contract: Contract, before: Outputs, after: Outputs, what: str) -> Verdict:
        """Hold `after` to `contract`.

        Args:
            contract: The promise.
            before: Outputs of the reference.
            after: Outputs of the result.
            what: The pass, for the message.

        Raises:
            GateError: If the contract does not hold.
        """
        verdict = measure(self.probes, before, after, str(contract))
        fault = _fault(contract, verdict)
        if fault:
            raise GateError(f"{what}: {fault} on {verdict.worst}; nothing was written")
        return verdict


def measure(probes: Sequence[Probe], before: Outputs, after: Outputs, contract: str) -> Verdict:
    """Measure how far outputs moved, over all probes; differences count at real tokens only."""
    worst, difference = "-", -1.0
    by_output: dict[str, list[_Distance]] = {}
    for probe, reference, result in zip(probes, before, after, strict=True):
        for name, array in reference.items():
            distance = _distance(array, result.get(name), probe)
            by_output.setdefault(name, []).append(distance)
            if not distance.difference <= difference:
                worst, difference = f"output '{name}' of probe '{probe.name}'", distance.difference
    cosines = [_mean([d.cosine for d in found], [d.rows for d in found]) for found in by_output.values()]
    agreements = [
        _mean([d.agreement or 0.0 for d in found], [d.rows for d in found])
        for found in by_output.values()
        if found[0].agreement is not None
    ]
    return Verdict(contract, difference, min(cosines), min(agreements, default=None), len(probes), worst)


def _mean(numbers: list[float], weights: list[int]) -> float:
    return float(np.average(numbers, weights=weights)) if sum(weights) else 1.0


def _fault(contract: Contract, verdict: Verdict) -> str | None:
    if isinstance(contract, Budget):
        if not verdict.cosine >= contract.cosine:
            return f"mean cosine {verdict.cosine:.4f} is below the budget of {contract.cosine:g}"
        if verdict.agreement is not None and not verdict.agreement >= contract.agreement:
            return f"agreement {verdict.agreement:.4f} is below the budget of {contract.agreement:g}"
        return None
    if not verdict.difference <= contract.tolerance:
        return f"outputs differ by {verdict.difference:.3g} of their scale, more than {contract.tolerance:g},"
    return None


def _check_reference(probe: Probe, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> None:
    for name, array in first.items():
        if not np.array_equal(array, second[name], equal_nan=array.dtype.kind == "f"):
            raise InputError(
                f"the model differs from itself: output '{name}' changes between two runs on probe '{probe.name}'; "
                "export it in evaluation mode, without live Dropout or random operators"
            )
        real = _real(array, probe.mask)
        if real.dtype.kind == "f" and not np.isfinite(real).all():
            raise InputError(f"output '{name}' of the model is not finite on probe '{probe.name}'; check its weights")


def _real(array: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return what counts of an output: real tokens of [B, S, ...], rows with any of [B, ...], else everything."""
    if mask is None or array.ndim == 0 or array.shape[0] != mask.shape[0]:
        return array
    if array.ndim > 2 and array.shape[:2] == mask.shape:
        return np.asarray(array[mask])
    return np.asarray(array[mask.any(axis=1)])


def _distance(before: np.ndarray, after: np.ndarray | None, probe: Probe) -> _Distance:
    if after is None or after.shape != before.shape or after.dtype != before.dtype:
        return _Distance(float("inf"), -1.0, None, 1)
    if before.dtype.kind != "f":
        same = bool(np.array_equal(before, after))
        return _Distance(0.0 if same else float("inf"), 1.0 if same else -1.0, None, 1)
    one, other = (_real(array, probe.mask).astype(np.float64) for array in (before, after))
    if not np.isfinite(after).all():  # a row masked throughout may give anything, but not this
        return _Distance(float("inf"), -1.0, None, 1)
    if one.size == 0:
        return _Distance(0.0, 1.0, None, 0)
    scale = float(np.abs(one).max()) or 1.0
    one_rows, other_rows = (array.reshape(-1, array.shape[-1] if array.ndim else 1) for array in (one, other))
    norms = np.linalg.norm(one_rows, axis=1) * np.linalg.norm(other_rows, axis=1)
    safe = np.where(norms > 0, norms, 1.0)
    cosines = np.where(norms > 0, (one_rows * other_rows).sum(axis=1) / safe, np.all(one_rows == other_rows, axis=1))
    agreement = None
    if before.ndim == 2 and before.shape[1] > 1:
        agreement = float((one_rows.argmax(axis=1) == other_rows.argmax(axis=1)).mean())
    return _Distance(float(np.abs(one - other).max()) / scale, float(cosines.mean()), agreement, len(one_rows))
