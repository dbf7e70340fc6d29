"""Rules for GELU in the forms that exporters write, x/2 * (1 + y)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ffc import Op, Rule, Sample, Tensor, rule
from ffc.compiler.rules import normal
from ffc.graph.dialect.trace import Program

__all__ = ["RULES"]

_HALVES: dict[str, Program] = {
    "half-last": lambda op, x, y: op.Mul(op.Mul(x, y), 0.5),
    "half-first": lambda op, x, y: op.Mul(op.Mul(x, 0.5), y),
    "half-inside": lambda op, x, y: op.Mul(x, op.Mul(y, 0.5)),
}

# y = erf(x / sqrt 2), of the normal distribution
_EXACT: dict[str, Program] = {
    "erf-div": lambda op, x: op.Erf(op.Div(x, 1.4142135381698608)),
    "erf-mul": lambda op, x: op.Erf(op.Mul(x, 0.7071067690849304)),
}

# y = tanh(sqrt(2/pi) * (x + 0.044715 x^3)), its approximation
_TANH: dict[str, Program] = {
    "tanh-pow": lambda op, x: _tanh(op, op.Add(x, op.Mul(op.Pow(x, 3.0), 0.044714998453855515))),
    "tanh-cube": lambda op, x: _tanh(op, op.Add(x, op.Mul(op.Mul(op.Mul(x, x), x), 0.044714998453855515))),
    "tanh-cube-right": lambda op, x: _tanh(op, op.Add(x, op.Mul(op.Mul(x, op.Mul(x, x)), 0.044714998453855515))),
    "tanh-factored": lambda op, x: op.Tanh(
        op.Mul(op.Mul(x, 0.7978845834732056), op.Add(op.Mul(op.Mul(x, 0.044714998453855515), x), 1.0))
    ),
}


def _tanh(op: Op, x: Tensor) -> Tensor:
    return op.Tanh(op.Mul(x, 0.7978845834732056))


def _form(inner: Program, half: Program) -> Program:
    return lambda op, x: half(op, x, op.Add(inner(op, x), 1.0))


def _rules(inners: dict[str, Program], gelu: Program) -> Iterator[Rule]:
    samples = (Sample({"x": normal(5, scale=3)}), Sample({"x": normal(2, 3, 8, scale=3)}))
    for (inner, program), (half, around) in itertools.product(inners.items(), _HALVES.items()):
        yield rule(f"gelu-{inner}-{half}", gelu, samples=samples)(_form(program, around))


RULES = (
    *_rules(_EXACT, lambda op, x: op.Gelu(x)),
    *_rules(_TANH, lambda op, x: op.Gelu(x, approximate="tanh")),
)
