"""Pairs of QuantizeLinear and DequantizeLinear, which round activations to steps and back: they go."""

from __future__ import annotations

import numpy as np

from ffc import Match, Op, Sample, Tensor, constant, rule
from ffc.compiler.rules import Draw
from ffc.graph.dialect import quantise

__all__ = ["RULES"]

_WIDEST, _OFF = 32.5, 1e-6
"""How wide a range between whole numbers is at most, and how far off it may be, as a share: what float32 rounds."""

_HALF_A_STEP = 0.501
"""A zero point is rounded; a little more, for float32."""


def _on_steps(step: float, zero: int = 0) -> Draw:
    """Draw uint8 numbers of steps, both ends among them, as what they stand for: rounding then changes nothing."""

    def draw(random: np.random.Generator) -> np.ndarray:
        numbers = random.integers(0, 256, (3, 5))
        numbers[0, :2] = 0, 255
        return ((numbers - zero) * step).astype(np.float32)

    return draw


# Steps found as the model runs


@rule(
    "round-dynamically", lambda op, x: x, shared=True,
    samples=(Sample({"x": _on_steps(0.5)}), Sample({"x": _on_steps(0.25, 100)})),
)  # fmt: skip
def _dynamic(op: Op, x: Tensor) -> Tensor:
    return op.DequantizeLinear(*op.DynamicQuantizeLinear(x, outputs=3))


# Steps that are known before


def _back_again(match: Match) -> str | None:
    """Both ways go by the same steps, and what is rounded is no weight."""
    for name in ("scale", "zero"):
        one, other = match.values.get(name), match.values.get(f"{name}_back")
        known = constant(one), constant(other)
        if one is not other and (known[0] is None or known[1] is None or not _same(known[0], known[1])):
            return f"it is read by another {name} than it was rounded by"
    return "what is rounded is constant" if constant(match.values["x"]) is not None else None


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


def _cuts(match: Match) -> bool | None:
    """Whether negative numbers become 0, since that is the lowest step; None where it is not known."""
    if "zero" not in match.values:
        return True  # uint8 with 0 for its zero point
    zero = constant(match.values["zero"])
    least = None if zero is None else quantise.ends(zero.dtype)
    if zero is None or least is None:
        return None
    lowest = np.equal(zero, least[0])
    return bool(lowest.all()) if lowest.all() == lowest.any() else None


def _keeps_signs(match: Match) -> str | None:
    return None if _cuts(match) is False else "its lowest step is 0, or not known"


def _cuts_below_zero(match: Match) -> str | None:
    return None if _cuts(match) else "its lowest step is not 0"


def _whole_ends(match: Match) -> tuple[int, int] | None:
    """Return the whole numbers that steps go between, as those of ReLU6 and Hardtanh do; None where they do not.

    What was only seen as a model was calibrated ends anywhere. A step tells the width of its range to the precision of
    float32, and its zero point to half a step where that begins.
    """
    scale = constant(match.values["scale"])
    zero = constant(match.values["zero"]) if "zero" in match.values else np.zeros((), np.uint8)
    least, most = (zero is not None and quantise.ends(zero.dtype)) or (0, 0)
    if scale is None or zero is None or scale.dtype != np.float32 or scale.size != 1 or zero.size != 1:
        return None
    step, below = float(scale.reshape(())), int(zero.reshape(())) - least
    seen = (most - least) * step
    if not 0 < seen <= _WIDEST or abs(seen - round(seen)) > _OFF * seen:
        return None
    low = -round(below * step)
    return (low, low + round(seen)) if abs(below + low / step) < _HALF_A_STEP else None


def _stops_at_whole_numbers(match: Match) -> str | None:
    return None if _whole_ends(match) else "its ends are not whole numbers"


def _ends(match: Match) -> dict[str, np.ndarray]:
    low, high = _whole_ends(match) or (0, 0)
    return {"low": np.array(low, np.float32), "high": np.array(high, np.float32)}


_UINT8 = {"scale": 0.5, "scale_back": 0.5}
_SHIFTED = {**_UINT8, "zero": np.uint8(7), "zero_back": np.uint8(7)}
_FROM_ZERO = {**_UINT8, "zero": np.uint8(0), "zero_back": np.uint8(0)}
_ELSEWHERE = {**_SHIFTED, "zero_back": np.uint8(8)}
_COARSER = {**_SHIFTED, "scale_back": 1.0}
_AXIS = {"axis": 1}


def _pair(
    op: Op, x: Tensor, scale: Tensor, zero: Tensor, scale_back: Tensor, zero_back: Tensor, *, axis: int
) -> Tensor:
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero, axis=axis), scale_back, zero_back, axis=axis)


def _pair_at_zero(op: Op, x: Tensor, scale: Tensor, scale_back: Tensor, *, axis: int) -> Tensor:
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, axis=axis), scale_back, axis=axis)


def _relu(op: Op, x: Tensor) -> Tensor:
    return op.Relu(x)


def _clip(op: Op, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return op.Clip(x, low, high)


_WHOLE, _HALF = _on_steps(0.5, 7), _on_steps(0.5)
_SIGNED: Draw = lambda random: _HALF(random) * random.choice([-1, 1], (3, 5)).astype(np.float32)  # noqa: E731
_NEGATIVE = Sample({"x": _SIGNED}, _FROM_ZERO, _AXIS)

_SIXTH, _FIFTH = np.float32(6 / 255), np.float32(5 / 255)
_TO_SIX = {"scale": _SIXTH, "scale_back": _SIXTH}
_TO_THREE = {"scale": _FIFTH, "scale_back": _FIFTH, "zero": np.uint8(102), "zero_back": np.uint8(102)}


def _beyond(step: np.float32, zero: int = 0) -> Draw:
    """Draw numbers of steps, and some beyond either end."""

    def draw(random: np.random.Generator) -> np.ndarray:
        beyond = np.full((3, 1), random.choice([-9, 9]), np.float32)
        return np.append(_on_steps(float(step), zero)(random), beyond, axis=1)

    return draw


RULES = (
    _dynamic,
    # onnxruntime's tools drop a Clip or a ReLU before steps that do what it does.
    rule(
        "round-between", _clip, where=(_back_again, _stops_at_whole_numbers), bind=_ends, shared=True,
        samples=(
            Sample({"x": _beyond(_FIFTH, 102)}, _TO_THREE, _AXIS),
            Sample({"x": _beyond(_SIXTH)}, {**_TO_SIX, "zero": np.uint8(0), "zero_back": np.uint8(0)}, _AXIS),
            Sample({"x": _WHOLE}, _SHIFTED, _AXIS, matches=False),
        ),
    )(_pair),
    rule(
        "round-unsigned-between", _clip, where=(_back_again, _stops_at_whole_numbers), bind=_ends, shared=True,
        samples=(
            Sample({"x": _beyond(_SIXTH)}, _TO_SIX, _AXIS),
            Sample(_NEGATIVE.inputs, _UINT8, _AXIS, matches=False),
        ),
    )(_pair_at_zero),
    rule(
        "round", lambda op, x: x, where=(_back_again, _keeps_signs), shared=True,
        samples=(
            Sample({"x": _WHOLE}, _SHIFTED, _AXIS),
            Sample({"x": _WHOLE}, _ELSEWHERE, _AXIS, matches=False),
            Sample({"x": _WHOLE}, _COARSER, _AXIS, matches=False),
            Sample({"x": _HALF}, _FROM_ZERO, _AXIS, matches=False),
        ),
    )(_pair),
    rule(
        "round-above-zero", _relu, where=(_back_again, _cuts_below_zero), shared=True,
        samples=(_NEGATIVE, Sample({"x": _WHOLE}, _SHIFTED, _AXIS, matches=False)),
    )(_pair),
    rule(
        "round-unsigned", _relu, where=(_back_again, _cuts_below_zero), shared=True,
        samples=(Sample(_NEGATIVE.inputs, _UINT8, _AXIS),),
    )(_pair_at_zero),
)  # fmt: skip
