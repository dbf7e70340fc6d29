"""Proving a pass: the model between two passes, and whether what a pass made of it keeps what the pass promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from ffc.compiler.proof import expected, overflow
from ffc.compiler.proof.contracts import Contract, KnownRows, ModelBefore, ModelFrom, Verdict
from ffc.compiler.proof.full_precision import dequantised, exact, holds_int8, rounds
from ffc.compiler.proof.verify import Outputs, Prover, measure
from ffc.errors import GateError
from ffc.graph.execute import CUDA, cuda_at_hand
from ffc.graph.tidy import tidy

__all__ = ["Change", "Stage", "overall", "prove"]


@dataclass(frozen=True, eq=False)
class Stage:
    """A model between two passes, with what it gives on the probes.

    Attributes:
        model: The model.
        outputs: Its outputs, numbers rounded as it rounds them.
        last_fp32: Outputs of the last stage that rounds nothing to int8 or half, against which the budget holds.
        budget: The contract of the first pass that rounds, once there is one.
        spender: The name of that pass.
    """

    model: ir.Model
    outputs: Outputs
    last_fp32: Outputs
    budget: Contract | None = None
    spender: str = ""


@dataclass(frozen=True, eq=False)
class Change:
    """What a pass made of the model of a stage.

    Attributes:
        name: The pass.
        contract: What it promises.
        after: The model after it.
        provider: The provider of onnxruntime that this is made for.
        again: Runs the pass on another model and returns the result.
    """

    name: str
    contract: Contract
    after: ir.Model
    provider: str
    again: Callable[[ir.Model], ir.Model]


def prove(change: Change, stage: Stage, prover: Prover) -> tuple[Stage, Verdict]:
    """Hold what a pass made of the model of `stage` to its contract, and to the budget of a pass before it.

    Returns:
        The next stage, and what was measured.

    Raises:
        InputError: If rows that the contract names cannot be read or do not fit.
        CannotApplyError: If onnxruntime refuses a model.
        GateError: If a contract does not hold.
    """
    outputs = prover.run(change.after)
    verdict = _judge(change, stage, outputs, prover)
    if stage.budget is not None:  # so that budgets in a row do not add up
        prover.judge(stage.budget, stage.last_fp32, outputs, f"held to the budget of {stage.spender}")
    following = replace(stage, model=change.after, outputs=outputs)
    if not any(holds_int8(model) or prover.holds_half(model) for model in (stage.model, change.after)):
        following = Stage(change.after, outputs, outputs)
    elif stage.budget is None and change.contract.spends:
        following = replace(following, budget=change.contract, spender=change.name)
    prover.follow(change.after)
    _prove_on_cuda(change, following, prover)
    return following, verdict


def overall(stage: Stage, prover: Prover) -> Verdict | None:
    """Measure `stage` against the model as it came, None if nothing was done to it."""
    if stage.outputs is prover.source:
        return None
    return measure(prover.probes, prover.source, stage.outputs, "measured against the model as it came")


def _judge(change: Change, stage: Stage, outputs: Outputs, prover: Prover) -> Verdict:
    """Hold a pass to its contract, given the outputs of its result."""
    before, after = _compared(change, stage, prover)
    match change.contract.against:
        case KnownRows(read):
            return expected.judge(change.contract, after, read(before))
        case ModelFrom(make):
            reference = prover.run(tidy(make(before)))
        case ModelBefore():
            reference = stage.outputs if before is stage.model else prover.run(before)
    found = outputs if after is change.after else prover.run(after)
    try:
        return prover.judge(change.contract, reference, found)
    except GateError as error:
        place = overflow.find(after, prover.probes) if prover.holds_half(after) else None
        raise GateError(f"{place}; {error}") if place else error from error


def _compared(change: Change, stage: Stage, prover: Prover) -> tuple[ir.Model, ir.Model]:
    """Return the models before and after that a contract compares: as they are, or what they mean in float32."""
    before, after, contract = stage.model, change.after, change.contract
    if not contract.as_rounded and rounds(before):
        plain = exact(before)
        kernels = holds_int8(before) and not holds_int8(after)  # which have no such meaning
        return plain, change.again(plain) if kernels else exact(after)
    if isinstance(contract.against, ModelBefore) and holds_int8(before) and holds_int8(after):
        return dequantised(before), dequantised(after)  # int8 amplifies what is within any budget
    return before, after


def _prove_on_cuda(change: Change, stage: Stage, prover: Prover) -> None:
    """Where a CUDA provider is at hand, hold what is made for it to what was proved on the CPU provider."""
    if not cuda_at_hand() or not (prover.holds_half(stage.model) or change.provider == CUDA):
        return
    contract, before = (change.contract, stage.outputs) if stage.budget is None else (stage.budget, stage.last_fp32)
    prover.judge(contract, before, prover.run(stage.model, CUDA), "on the CUDA provider")
