"""Proving a step: running the model before and after on the same inputs, and holding the difference to the contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.contracts import Contract, Verdict
from ffc.compiler.proof.probes import Probe
from ffc.compiler.proof.probing.counted import Counted
from ffc.errors import CannotApplyError, GateError, InputError
from ffc.graph.dialect.half import rounded
from ffc.graph.dialect.widen import computes_in_half, holds_bfloat16, runnable
from ffc.graph.execute import CPU, Runner

__all__ = ["Outputs", "Prover", "hold", "measure"]

Outputs = list[dict[str, np.ndarray]]
"""What a model gives: for each probe, every output by name."""


@dataclass(frozen=True)
class _Distance:
    """How far one output moved on one probe.

    Attributes:
        difference: Largest difference relative to the scale of the output; infinite where the two cannot be compared.
        cosine: Mean cosine of its rows.
        agreement: Share of rows whose largest entry stays the largest; None where rows are not scores.
        rows: How many rows those two are means of.
        why: Why the two cannot be compared, empty where they can.
    """

    difference: float
    cosine: float
    agreement: float | None
    rows: int
    why: str = ""

    @classmethod
    def apart(cls, why: str) -> _Distance:
        """Return the distance of two that cannot be compared."""
        return cls(float("inf"), -1.0, None, 1, why)


_NOTHING = _Distance(0.0, 1.0, None, 0)


class Prover:
    """Runs models on a fixed set of probes.

    Half precision that a pass brought in is rounded on the CPU as a processor with half products would, which
    onnxruntime's CPU provider does not. A model that came in half is run as that provider runs it, one in bfloat16 as
    `runnable` shows it, until a pass lets it compute in float32.

    Attributes:
        probes: The inputs.
        source: What the model as it came gives on each of them.
        alone: Why the user's rows are all that it is proved on, empty where they are not.
        remark: What is to be said of how the model runs as it came, empty where there is nothing.
    """

    def __init__(
        self, model: ir.Model, probes: Sequence[Probe], runner: Runner | None = None, remark: str = ""
    ) -> None:
        """Run `model` on `probes`, leaving out those that it cannot take (too long for its positions, say).

        Spare ones take their place. The first and the last are run twice, which shows a model that differs from itself.
        Where there are rows of the user's own, they are the proof alone if it takes no other, and what is not finite on
        others is left out; on these rows, what is not finite must stay what it was. Without rows, it must be finite
        where nothing is hidden, and what hides more than it can take is left out.

        Args:
            model: The model as it came.
            probes: The inputs.
            runner: Runs it, if there is one at hand.
            remark: What is to be said of how it runs.

        Raises:
            InputError: If it takes none of them or not all that are required, differs from itself, gives no finite
                numbers, or takes or gives anything but tensors.
        """
        self._came_in_half = computes_in_half(model)
        self.remark = remark
        runner = runner or Runner(runnable(model))
        taken, why = _taken(runner, probes)
        if not taken:
            raise InputError(f"{why}{_rows_wanted(model)}")
        self.alone = why if all(probe.required for probe, _ in taken) else ""
        self.probes = [probe for probe, _ in taken]
        self.source = [outputs for _, outputs in taken]
        for place in {0, len(taken) - 1}:
            _check_same(self.probes[place], self.source[place], runner.run(self.probes[place].feeds))

    def run(self, model: ir.Model, provider: str = CPU, probes: Sequence[Probe] | None = None) -> Outputs:
        """Run `model` on `probes`, by default on all."""
        if provider == CPU and (self.holds_half(model) or holds_bfloat16(model)):
            model = runnable(model) if holds_bfloat16(model) else rounded(model)
        runner = Runner(model, provider=provider)
        return [runner.run(probe.feeds) for probe in (self.probes if probes is None else probes)]

    def follow(self, model: ir.Model) -> None:
        """Take note of what passes have made of the model: what came in half may compute in float32 from here on."""
        self._came_in_half = self._came_in_half and computes_in_half(model)

    def holds_half(self, model: ir.Model) -> bool:
        """Whether passes have brought `model` to half precision."""
        return not self._came_in_half and computes_in_half(model)

    def judge(self, contract: Contract, before: Outputs, after: Outputs, what: str = "") -> Verdict:
        """Hold outputs `after` to `contract`, against those `before`; `what` is held to it, where that is not plain.

        Raises:
            GateError: If the contract does not hold.
        """
        return hold(contract, measure(self.probes, before, after, str(contract)), what)


def hold(contract: Contract, verdict: Verdict, what: str = "") -> Verdict:
    """Return `verdict` if what it says keeps `contract`; `what` was measured, where that is not plain.

    Raises:
        GateError: If it does not.
    """
    fault = contract.fault(verdict)
    if fault:
        advice = f"; {contract.advice}" if contract.advice and np.isfinite(verdict.difference) else ""
        raise GateError(f"{what}{': ' if what else ''}{fault} on {verdict.worst}; nothing was written{advice}")
    return verdict


def measure(probes: Sequence[Probe], before: Outputs, after: Outputs, contract: str) -> Verdict:
    """Measure how far outputs moved, over all probes; differences count at real tokens only.

    Args:
        probes: What the outputs were computed on.
        before: Outputs of the reference.
        after: Outputs of the result; an output that is new, missing or in another place differs infinitely.
        contract: What the verdict calls the contract.
    """
    worst, difference = "-", -1.0
    by_output: dict[str, list[_Distance]] = {}
    for probe, reference, result in zip(probes, before, after, strict=True):
        for name, one, other in _pairs(reference, result):
            distance = _distance(one, other, probe.counted(name))
            by_output.setdefault(name, []).append(distance)
            if not distance.difference <= difference:
                why = f", which {distance.why}" if distance.why else ""
                worst, difference = f"output '{name}' of probe '{probe.name}'{why}", distance.difference
    cosines = [_mean([(d.cosine, d.rows) for d in found]) for found in by_output.values()]
    scored = [[(d.agreement, d.rows) for d in found if d.agreement is not None] for found in by_output.values()]
    agreement = min((_mean(found) for found in scored if found), default=None)
    return Verdict(contract, difference, min(cosines, default=1.0), agreement, len(probes), worst)


def _pairs(
    reference: Mapping[str, np.ndarray], result: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray | None, np.ndarray | None]]:
    """Yield each output of either by name, with None where one lacks it or has it in another place."""
    places = {name: place for place, name in enumerate(result)}
    for place, name in enumerate(dict.fromkeys([*reference, *result])):
        yield name, reference.get(name), result[name] if places.get(name) == place else None


def _mean(weighted: Sequence[tuple[float, int]]) -> float:
    total = sum(weight for _, weight in weighted)
    return sum(number * weight for number, weight in weighted) / total if total else 1.0


_Taken = list[tuple[Probe, dict[str, np.ndarray]]]
"""Probes that a model runs on, each with its outputs."""


def _taken(runner: Runner, probes: Sequence[Probe]) -> tuple[_Taken, str]:
    """Return what a proof rests on, and why the last of the other probes is left out."""
    taken, refusals = _takes(runner, [probe for probe in probes if not probe.spare])
    if refusals or not taken:
        short, more = _takes(runner, [probe for probe in probes if probe.spare])
        taken, refusals = [*taken, *short], [*refusals, *more]
    odd = {id(probe): why for probe, outputs in taken if (why := _not_finite(probe, outputs))}
    left = [(probe, outputs) for probe, outputs in taken if probe.required or id(probe) not in odd]
    rows = [id(probe) for probe, _ in taken if probe.required]
    whole = [id(probe) for probe, _ in taken if probe.whole and id(probe) in odd]
    hopeless = odd.keys() >= set(rows) if rows else bool(whole) or not left
    if odd and hopeless:
        advice = "" if rows else ", or give rows that suit it with --data rows.npz"
        raise InputError(f"{odd[next(iter((*rows, *whole, *odd)))]}; check its weights{advice}")
    refused = f"the model runs on none of the inputs made for it: {'; '.join(refusals[-1:])}"
    return left, next(iter(odd.values()), refused)


def _takes(runner: Runner, probes: Sequence[Probe]) -> tuple[_Taken, list[str]]:
    """Return the probes that a model runs on, and why it did not run on the others."""
    taken: _Taken = []
    refusals = []
    for probe in probes:
        try:
            taken.append((probe, runner.run(probe.feeds)))
        except CannotApplyError as error:
            if probe.required:
                raise InputError(f"the model does not run on {probe.name} and those after it: {error}") from error
            refusals.append(str(error))
    return taken, refusals


def _rows_wanted(model: ir.Model) -> str:
    """Say how to give rows, and of what."""
    wanted = ", ".join(f"{value.name} {value.dtype} {value.shape}" for value in model.graph.inputs)
    return f"; give rows that it runs on as --data rows.npz, with an array for each input: {wanted}"


def _check_same(probe: Probe, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> None:
    for name, array in first.items():
        if not np.array_equal(array, second[name], equal_nan=array.dtype.kind == "f"):
            raise InputError(
                f"the model differs from itself: output '{name}' changes between two runs on probe '{probe.name}'; "
                "export it in evaluation mode, without live Dropout or random operators"
            )


def _not_finite(probe: Probe, outputs: Mapping[str, np.ndarray]) -> str | None:
    """Say which output is not finite; of a user's own rows, which holds no number at all."""
    for name, array in outputs.items():
        real = probe.counted(name).pick(array)
        if real.dtype.kind != "f" or not real.size:
            continue
        if np.isnan(real).all() if probe.required else not np.isfinite(real).all():
            return f"output '{name}' of the model is not finite on probe '{probe.name}'"
    return None


def _distance(before: np.ndarray | None, after: np.ndarray | None, counted: Counted) -> _Distance:
    if before is None or after is None:
        return _Distance.apart("is new, missing or in another place")
    if after.shape != before.shape or after.dtype != before.dtype:
        return _Distance.apart("has another shape or type")
    one, other = counted.pick(before), counted.pick(after)
    if before.dtype.kind != "f":
        return _NOTHING if one.size == 0 else _exact_distance(one, other)
    # Padding may give any number, but what was one must stay one; a row masked throughout may never have been.
    finite = np.isfinite(one)
    if (np.isfinite(before) & ~np.isfinite(after)).any():
        return _Distance.apart("is no longer finite")
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return _Distance.apart("is another number where it was not finite")
    one, other = one[finite].astype(np.float64), other[finite].astype(np.float64)
    if one.size == 0:
        return _NOTHING
    scale = float(np.abs(one).max()) or 1.0
    numbers = (np.where(np.isfinite(before), array, 0) for array in (before, after))
    cosines = _cosines(*(counted.scores(array, 0.0).astype(np.float64) for array in numbers))
    agreement = None
    if before.ndim == 2 and before.shape[1] > 1:
        numbers = (np.where(np.isnan(before), -np.inf, array) for array in (before, after))
        largest, now = (counted.scores(array, -np.inf).argmax(axis=1) for array in numbers)
        agreement = float((largest == now).mean())
    return _Distance(float(np.abs(one - other).max()) / scale, float(cosines.mean()), agreement, len(cosines))


def _exact_distance(one: np.ndarray, other: np.ndarray) -> _Distance:
    """Compare what is no float: an entry is right or wrong, and one that is wrong is off by the whole scale."""
    share = float((one == other).mean())
    return _Distance(0.0 if share == 1.0 else 1.0, share, share, one.size)


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of `one` with that of `other`; two rows of zeros are alike."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    safe = np.where(norms > 0, norms, 1.0)
    return np.asarray(np.where(norms > 0, (one * other).sum(axis=1) / safe, np.all(one == other, axis=1)))
