"""A function of one's own, RMS norm, with a kernel that computes it, the rule that finds it, and its pass."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

import ffc
from ffc import Match, Op, Sample, Tensor, rules


@ffc.function(family="norm", by_token=("x",))
def RmsNorm(op: Op, x: Tensor, gamma: Tensor, *, epsilon: float) -> Tensor:
    """``x / sqrt(mean(x²) + epsilon) * gamma`` over the last axis of x [..., W]; gamma is [W]."""
    mean = op.ReduceMean(op.Mul(x, x), [-1])
    return op.Mul(op.Div(x, op.Sqrt(op.Add(mean, op.Constant(value_float=epsilon)))), gamma)


@RmsNorm.lowering("rms-normalization", target="cpu")
def rms_normalization(op: Op, x: Tensor, gamma: Tensor, *, epsilon: float) -> Tensor:
    """`RmsNorm` as the operator of opset 23."""
    return op.RMSNormalization(x, gamma, axis=-1, epsilon=epsilon)


def _as_wide_as_x(match: Match) -> str | None:
    shape = match.editor.shapes.of(match.values["x"])
    fits = shape is not None and match.array("gamma").shape == shape[-1:]
    return None if fits else "gamma is not as wide as the last axis"


@ffc.rule(
    "rms-norm",
    RmsNorm,
    where=(rules.is_constant("gamma"), rules.is_scalar("epsilon"), _as_wide_as_x),
    bind=lambda match: {"epsilon": match.number("epsilon")},
    samples=(
        Sample({"x": rules.normal(2, 3, 8)}, {"gamma": rules.normal(8), "epsilon": 1e-6}),
        Sample({"x": rules.normal(2, 3, 8)}, {"gamma": rules.normal(1), "epsilon": 1e-6}, matches=False),
    ),
)
def _written_out(op: Op, x: Tensor, gamma: Tensor, epsilon: Tensor) -> Tensor:
    mean = op.ReduceMean(op.Pow(x, 2.0), [-1])
    return op.Mul(gamma, op.Mul(x, op.Reciprocal(op.Sqrt(op.Add(mean, epsilon)))))


@dataclass(frozen=True)
class FuseRmsNorm(ffc.Pass):
    """Recognise RMS norms that an exporter wrote out."""

    name = "rms-norm"
    needs = ("clean",)
    rules = (_written_out,)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        rules.apply(self.rules, model, log)
