"""Rules that let an encoder work on [batch, tokens, width] where an exporter has its tokens first.

``torch.nn.MultiheadAttention`` computes on [tokens, batch, width] whatever it is given. The swap of the two axes is
sent on through what treats every token alike, until it meets the one that takes it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ffc import Match, Op, Rule, Sample, Tensor, rule
from ffc.compiler.rules import Condition, is_constant, normal, rank
from ffc.graph.dialect.trace import Program, parameters, with_signature

__all__ = ["RULES"]

_X = normal(3, 2, 4, mean=2.0, scale=0.1)
_Z = normal(3, 2, 1, mean=2.0, scale=0.1)
_C = normal(4, mean=2.0, scale=0.1)


_SWAPPED = ("x", "z")


def _swap(op: Op, x: Tensor) -> Tensor:
    return op.Transpose(x, perm=[1, 0, 2])


# swap(swap(x)) = x
@rule("swapped-back", lambda op, x: x, shared=True, samples=(Sample({"x": _X}),))
def _back(op: Op, x: Tensor) -> Tensor:
    return _swap(op, _swap(op, x))


def _of_tokens(match: Match) -> str | None:
    places = [match.attributes[name].as_int() for name in ("start", "end")]
    return None if places == [0, 1] else "it asks for more than the number of tokens"


@rule(
    "swap-shape", lambda op, x: op.Shape(x, start=1, end=2), shared=True, where=(_of_tokens,),
    samples=(
        Sample({"x": _X}, {}, {"start": 0, "end": 1}),
        Sample({"x": _X}, {}, {"start": 0, "end": 2}, matches=False),
    ),
)  # fmt: skip
def _length(op: Op, x: Tensor, *, start: int, end: int) -> Tensor:
    return op.Shape(_swap(op, x), start=start, end=end)


@rule(
    "swap-sizes", lambda op, x: op.Gather(op.Shape(x), [1, 0, 2], axis=0), shared=True, samples=(Sample({"x": _X}),)
)  # fmt: skip
def _sizes(op: Op, x: Tensor) -> Tensor:
    return op.Shape(_swap(op, x))


# f(swap(x)) = swap(f(x))
def _sent_on(name: str, program: Program, samples: Sequence[Sample], where: Sequence[Condition] = ()) -> Rule:
    """Return the rule that sends a swap of tensors of a program, x and z, on through it; others are constant."""
    tensors, attributes = parameters(program)

    def swapped(op: Op, *values: Tensor, **given: Any) -> Tensor:
        pairs = zip(tensors, values, strict=True)
        found: Tensor = program(op, *(_swap(op, x) if tensor in _SWAPPED else x for tensor, x in pairs), **given)
        return found

    def sent_on(op: Op, *values: Tensor, **given: Any) -> Tensor:
        return _swap(op, program(op, *values, **given))

    constants = [tensor for tensor in tensors if tensor not in _SWAPPED]
    match, rewrite = (
        with_signature(each, tensors, attributes, f"{name}-{each.__name__}", f"`{name}` of what has its tokens first.")
        for each in (swapped, sent_on)
    )
    conditions = (is_constant(*constants), *where) if constants else where
    return rule(f"swap-{name}", rewrite, where=conditions, shared=True, samples=samples)(match)


def _along_width(match: Match) -> str | None:
    return None if match.array("c").ndim < 2 else "the constant has more than one axis"


def _over_width(match: Match) -> str | None:
    axes = match.array("axes").tolist() if "axes" in match.values else [match.attributes["axis"].as_int()]
    return None if axes in ([-1], [2]) else "it is not taken over the width"


def _gelu(op: Op, x: Tensor, *, approximate: str) -> Tensor:
    return op.Gelu(x, approximate=approximate)


def _norm(op: Op, x: Tensor, gamma: Tensor, beta: Tensor, *, axis: int, epsilon: float) -> Tensor:
    return op.LayerNormalization(x, gamma, beta, axis=axis, epsilon=epsilon)


def _mean(op: Op, x: Tensor, axes: Tensor) -> Tensor:
    return op.ReduceMean(x, axes)


def _unary(name: str) -> Program:
    return lambda op, x: op.node(name, x)


def _with_constant(name: str) -> Program:
    return lambda op, x, c: op.node(name, x, c)


def _of_constant(name: str) -> Program:
    return lambda op, x, c: op.node(name, c, x)


def _binary(name: str) -> Program:
    return lambda op, x, z: op.node(name, x, z)


def _elementwise() -> Iterator[Rule]:
    for name in ("Erf", "Relu", "Sigmoid", "Sqrt", "Tanh"):
        yield _sent_on(name.lower(), _unary(name), (Sample({"x": _X}),))
    one = (Sample({"x": _X}, {"c": _C}), Sample({"x": _X}, {"c": 2.0}))
    wrong = Sample({"x": _X}, {"c": normal(2, 3, 4, mean=2.0, scale=0.1)}, matches=False)
    for name in ("Add", "Div", "Mul", "Pow", "Sub"):
        yield _sent_on(f"{name.lower()}-constant", _with_constant(name), (*one, wrong), (_along_width,))
    for name in ("Div", "Sub"):
        yield _sent_on(f"{name.lower()}-of-constant", _of_constant(name), (*one, wrong), (_along_width,))
    for name in ("Add", "Div", "Mul", "Sub"):
        yield _sent_on(name.lower(), _binary(name), (Sample({"x": _X, "z": _X}), Sample({"x": _X, "z": _Z})))


_PARAMETERS = {"gamma": _C, "beta": _C}

RULES = (
    _back,
    _length,
    _sizes,
    *_elementwise(),
    _sent_on("gelu", _gelu, tuple(Sample({"x": _X}, {}, {"approximate": form}) for form in ("none", "tanh"))),
    _sent_on(
        "product", lambda op, x, w: op.MatMul(x, w),
        (Sample({"x": _X}, {"w": normal(4, 5)}), Sample({"x": _X}, {"w": normal(2, 4, 5)}, matches=False)),
        (rank("w", 2),),
    ),
    _sent_on(
        "linear", lambda op, x, w, b: op.ffc.Linear(x, w, b), (Sample({"x": _X}, {"w": normal(4, 5), "b": normal(5)}),),
    ),
    _sent_on(
        "norm", _norm,
        tuple(Sample({"x": _X}, _PARAMETERS, {"axis": axis, "epsilon": 1e-5}) for axis in (-1, 2)), (_over_width,),
    ),
    _sent_on(
        "mean", _mean,
        tuple(Sample({"x": _X}, {"axes": [axis]}, matches=axis != 1) for axis in (-1, 2, 1)), (_over_width,),
    ),
)  # fmt: skip
