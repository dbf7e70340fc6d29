"""The pass `widen`: compute in float32 what a model computes in half precision or bfloat16."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

import ffc
from ffc.compiler.proof.contracts import Verdict
from ffc.graph.dialect.widen import computes_in_half, holds_bfloat16, widen
from ffc.settings.wanted import FROM_0

HALF_NOISE = 0.02
"""How far apart a model in half and what it means may be.

Each of the hundred or so roundings that an output goes through is off by up to 2^-11 of it, either way: by 0.005 in all
on average, and the worst of many outputs by four times that.
"""

BFLOAT16_NOISE = 8 * HALF_NOISE
"""The same for bfloat16, which rounds to 2^-8."""


@dataclass(frozen=True)
class Noise(ffc.Equal):
    """Outputs equal those of the model before, to what its own rounding costs."""

    @property
    def as_rounded(self) -> bool:
        """Held to what the model before gives: what it means in float32 is what the pass makes of it."""
        return True

    def fault(self, verdict: Verdict) -> str | None:
        """See `Contract.fault`."""
        if super().fault(verdict) is None:
            return None
        found = f"outputs differ by {verdict.difference:.3g} of their scale, and rounding explains {self.tolerance:g}"
        return f"{found} (more if widen{{noise=...}} says so),"


@dataclass(frozen=True)
class Widen(ffc.Pass):
    """Compute in float32 what a model computes in half precision (float16) or bfloat16.

    1. Weights become float32, with the numbers that they hold, and so does the arithmetic, casts within it included.
    2. Inputs and outputs keep their types: casts stand where they enter and leave.

    Processors without half kernels compute in float32 anyway, between casts, so this is faster there, and the result is
    nearer to what the model means. Every other pass then finds what it knows. A compile for the CPU or for a portable
    model begins with it where a model computes in half; one for CUDA does not. What is to be stored in half can be, by
    `fp16` behind `fuse`.

    Outputs equal those of the model as it came to what half itself costs, which `noise` says. onnxruntime has hardly a
    kernel for bfloat16 on the CPU: there the model before is run in float32, each of its results rounded to bfloat16.
    """

    name = "widen"
    any_opset = True

    noise: float | None = ffc.option(
        f"largest difference that rounding in the model before may have made, relative to the scale of the output; by "
        f"default {HALF_NOISE} for half and {BFLOAT16_NOISE} for bfloat16",
        default=None,
        wanted=FROM_0,
    )

    @property
    def contract(self) -> Noise:
        """Outputs are off by no more than the rounding of the model before."""
        return Noise(HALF_NOISE if self.noise is None else self.noise)

    def fits(self, model: ir.Model, target: str) -> bool:
        """Where the model computes in half, unless it is for a processor that does so too."""
        return target != "cuda" and computes_in_half(model)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        if not computes_in_half(model):
            log.missed("the model", "it computes nothing in half precision or bfloat16")
            return
        rough = holds_bfloat16(model)
        if self.noise is None:
            log.decide("noise", BFLOAT16_NOISE if rough else HALF_NOISE)
        if rough:
            log.note("held against the model with each result rounded to bfloat16: onnxruntime cannot run it on a CPU")
        weights, operators = widen(model)
        log.did("weights", weights)
        log.did("operators", operators)
