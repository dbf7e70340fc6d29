"""A function of one's own, RMS norm, with a kernel that computes it, the rule that finds it, and its pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

import ffc
from ffc import Match, Op, Rule, Sample, Tensor, rules


@ffc.function(family="norm", by_token=("x",))
def RmsNorm(op: Op, x: Tensor, gamma: Tensor, *, epsilon: float) -> Tensor:
    """``x / sqrt(mean(x²) + epsilon) * gamma`` over the last axis of x [..., W]; gamma is [W]."""
    mean = op.ReduceMean(op.Mul(x, x), [-1])
    return op.Mul(op.Div(x, op.Sqrt(op.Add(mean, op.Constant(value_float=epsilon)))), gamma)


@RmsNorm.lowering("rms-normalization", target="cpu")
def rms_normalization(op: Op, x: Tensor, gamma: Tensor, *, epsilon: float) -> Tensor:
    """`RmsNorm` as the operator of opset 23."""
    return op.RMSNormalization(x, gamma, axis=-1, epsilon=epsilon)


def _written_out(op: Op, x: Tensor, gamma: Tensor, epsilon: Tensor) -> Tensor:
    mean = op.ReduceMean(op.Pow(x, 2.0), [-1])
    return op.Mul(gamma, op.Mul(x, op.Reciprocal(op.Sqrt(op.Add(mean, epsilon)))))


def _called(op: Op, x: Tensor, gamma: Tensor, *, epsilon: float) -> Tensor:
    return op.ffc.RmsNorm(x, gamma, epsilon=epsilon)


def _epsilon(match: Match) -> dict[str, float]:
    return {"epsilon": float(match.array("epsilon").reshape(-1)[0])}


def _as_wide_as_x(match: Match) -> str | None:
    shape = match.editor.shapes.of(match.values["x"])
    fits = shape is not None and match.array("gamma").shape == shape[-1:]
    return None if fits else "gamma is not as wide as the last axis"


def _samples(random: np.random.Generator) -> Iterator[Sample]:
    x, gamma = random.standard_normal((2, 3, 8)).astype(np.float32), np.ones(8, np.float32)
    yield Sample({"x": x}, {"gamma": gamma, "epsilon": np.array(1e-6, np.float32)})
    yield Sample({"x": x}, {"gamma": gamma[:1], "epsilon": np.array(1e-6, np.float32)}, matches=False)


@dataclass(frozen=True)
class FuseRmsNorm(ffc.Pass):
    """Recognise RMS norms that an exporter wrote out."""

    name = "rms-norm"
    needs = ("clean",)
    rules = (
        Rule(
            "rms-norm", _written_out, _called, _samples, bind=_epsilon,
            where=(rules.is_constant("gamma"), rules.is_scalar("epsilon"), _as_wide_as_x),
        ),
    )  # fmt: skip

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        rules.apply(self.rules, model, log)
