"""Rules that write a Gemm by a constant weight as the product and the sum that it is.

What finds blocks, rounds weights and cuts them then meets one form, whatever converter wrote the model: factors and
transposes are in the weight and in the bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ffc import Match, Op, Rule, Sample, Tensor, constant, rule
from ffc.compiler.rules import is_constant, normal, rank

__all__ = ["RULES"]


def _is_float(match: Match) -> str | None:
    """The weight is float32: in half, a product and a sum apart round once more than a Gemm does."""
    return None if match.array("w").dtype == np.float32 else "its weight is not float32"


def _factor(match: Match, name: str) -> np.float32:
    return np.float32(match.attributes[name].as_float())


def _turned(wanted: bool) -> Any:
    def holds(match: Match) -> str | None:
        return None if bool(match.attributes["transA"].as_int()) == wanted else f"transA is {int(not wanted)}"

    return holds


def _scales_alike(match: Match) -> str | None:
    """What is added takes its factor if it is constant, or has none."""
    if constant(match.values["c"]) is not None or _factor(match, "beta") == 1:
        return None
    return "what is added is computed and has a factor, beta"


def _weight(match: Match) -> Mapping[str, Any]:
    w = match.array("w") * _factor(match, "alpha")
    return {"w": np.ascontiguousarray(w.T if match.attributes["transB"].as_int() else w)}


def _weight_and_bias(match: Match) -> Mapping[str, Any]:
    found, c = dict(_weight(match)), constant(match.values["c"])
    if c is None:
        return found
    c = c * _factor(match, "beta")
    columns = c.shape[-1] if c.ndim else 1
    if c.size == columns:  # a number for each, or one for all
        c = np.ascontiguousarray(np.broadcast_to(c.reshape(-1), found["w"].shape[1:]))
    return {**found, "c": c}


def _finite(match: Match) -> str | None:
    with np.errstate(over="ignore"):
        found = _weight(match)["w"]
    return None if np.isfinite(found).all() else "its weight is not finite"


_FACTORS = ((1.0, 1.0, 0), (1.0, 1.0, 1), (0.5, 1.0, 0), (-2.0, 0.25, 1), (0.5, 0.0, 0))
"""Values of alpha, beta and transB."""


def _samples(turned: bool, *added: tuple[int, ...]) -> tuple[Sample, ...]:
    """Return samples for x [3, 4], or that transposed, and w [4, 5], with what is added of each shape."""
    found = []
    for alpha, beta, transposed in _FACTORS:
        attributes = {"alpha": alpha, "beta": beta, "transA": int(turned), "transB": transposed}
        x, w = normal(*((4, 3) if turned else (3, 4))), normal(*((5, 4) if transposed else (4, 5)))
        found += [Sample({"x": x}, {"w": w, "c": normal(*shape)}, attributes) for shape in added]
        if added:
            found.append(Sample({"x": x, "c": normal(5)}, {"w": w}, attributes, matches=beta == 1))
        else:
            found.append(Sample({"x": x}, {"w": w}, attributes))
            found.append(Sample({"x": x, "w": w}, {}, attributes, matches=False))
    return tuple(found)


def _rules(turned: bool) -> tuple[Rule, Rule]:
    """Return the rules, with something added and without, for inputs that are transposed first or not."""
    where = (is_constant("w"), rank("w", 2), _is_float, _turned(turned), _finite)
    name = "gemm-transposed-input" if turned else "gemm"

    def product(op: Op, x: Tensor, w: Tensor) -> Tensor:
        return op.MatMul(op.Transpose(x, perm=[1, 0]) if turned else x, w)

    def total(op: Op, x: Tensor, w: Tensor, c: Tensor) -> Tensor:
        return op.Add(product(op, x, w), c)

    @rule(
        name, total, where=(*where, _scales_alike), bind=_weight_and_bias,
        samples=_samples(turned, (5,), (1,), (), (1, 5), (3, 5), (3, 1)),
    )  # fmt: skip
    def added(
        op: Op, x: Tensor, w: Tensor, c: Tensor, *, alpha: float, beta: float, transA: int, transB: int
    ) -> Tensor:
        return op.Gemm(x, w, c, alpha=alpha, beta=beta, transA=transA, transB=transB)

    @rule(f"{name}-no-bias", product, where=where, bind=_weight, samples=_samples(turned))
    def plain(op: Op, x: Tensor, w: Tensor, *, alpha: float, beta: float, transA: int, transB: int) -> Tensor:
        return op.Gemm(x, w, alpha=alpha, beta=beta, transA=transA, transB=transB)

    return added, plain


RULES = (*_rules(turned=False), *_rules(turned=True))
