"""What two models give on the same inputs."""

from __future__ import annotations

import onnx_ir as ir

from ffc.ci.diff.changes import Change
from ffc.compiler.proof import probes
from ffc.compiler.proof.contracts import Equal, Verdict
from ffc.compiler.proof.verify import Prover, measure
from ffc.errors import CannotApplyError

__all__ = ["compare_outputs", "numeric_change"]


def compare_outputs(before: ir.Model, after: ir.Model, seed: int = 0) -> Verdict:
    """Run two models on the same seeded inputs, masks full, padded and holed among them, and measure the difference.

    Args:
        before: The reference.
        after: The other; it takes and gives the same.
        seed: Of the inputs.

    Raises:
        CannotApplyError: If they do not take and give the same, or the other does not run.
        InputError: If the reference does not run, or differs from itself.
    """
    for what, first, second in (
        ("input", before.graph.inputs, after.graph.inputs),
        ("output", before.graph.outputs, after.graph.outputs),
    ):
        names = [{value.name for value in side} for side in (first, second)]
        odd = next(iter(sorted(str(name) for name in names[0] ^ names[1])), None)
        if odd is not None:
            side = "first" if odd in names[0] else "second"
            raise CannotApplyError(
                f"numbers cannot be compared: only the {side} model has the {what} '{odd}'; "
                "compare without numerics, or models that take and give the same"
            )
    prover = Prover(before, probes.make(before, seed))
    return measure(prover.probes, prover.source, prover.run(after), "same inputs")


def numeric_change(verdict: Verdict, tolerance: float = Equal().tolerance) -> Change | None:
    """Return what was measured as a change, or None within a tolerance relative to the scale of the outputs."""
    if verdict.difference <= tolerance:
        return None
    agreement = "" if verdict.agreement is None else f", agreement {verdict.agreement:.4f}"
    what = f"outputs differ by {verdict.difference:.1e} of their scale, cosine {verdict.cosine:.6f}{agreement}"
    detail = {"difference": verdict.difference, "cosine": verdict.cosine, "agreement": verdict.agreement}
    return Change("numerics", what, verdict.worst, detail=detail)
