"""Shape rules of the standard elementwise operators, with the arithmetic on small integer contents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from ffc.graph.shapes.dim import Dim, at_least, maximum, minimum
from ffc.graph.shapes.rule import Out, Site, UnknownError, broadcast, op, plain

__all__: list[str] = []

_UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh CumSum Elu Erf Exp Floor Gelu
HardSigmoid HardSwish Hardmax Identity IsInf IsNaN LeakyRelu Log LogSoftmax Mish Neg Not Reciprocal Relu Round
ScatterElements ScatterND Scatter Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh
ThresholdedRelu Trilu""".split()
_BINARY = """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean
Min Mod Mul Or Pow PRelu Sub Sum Xor""".split()
_TO_BOOL = frozenset("Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual".split())


def _compare(a: Dim, b: Dim) -> int:
    """Return whether ``a >= b`` as 0 or 1, or raise UnknownError."""
    if at_least(a, b):
        return 1
    if at_least(b - 1, a):
        return 0
    raise UnknownError


def _equal(a: Dim, b: Dim) -> int:
    if a == b:
        return 1
    if at_least(a, b + 1) or at_least(b, a + 1):
        return 0
    raise UnknownError


def _truncated_quotient(a: Dim, b: Dim) -> Dim:
    # ONNX rounds towards zero; that is floor division only where nothing is negative.
    if not (at_least(a, 0) and at_least(b, 1)):
        raise UnknownError
    return a // b


def _truth(a: Dim) -> int:
    return 1 - _equal(a, 0)


_ARITHMETIC: dict[str, Callable[[Dim, Dim], Dim]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _truncated_quotient,
    "Min": minimum,
    "Max": maximum,
    "Equal": _equal,
    "GreaterOrEqual": _compare,
    "LessOrEqual": lambda a, b: _compare(b, a),
    "Greater": lambda a, b: 1 - _compare(b, a),
    "Less": lambda a, b: 1 - _compare(a, b),
    "And": lambda a, b: _truth(a) * _truth(b),
    "Or": lambda a, b: maximum(_truth(a), _truth(b)),
}


def _stretched(ints: tuple[Dim, ...], count: int) -> tuple[Dim, ...]:
    return ints * count if len(ints) == 1 else ints


_FOLLOWED: dict[str, Callable[[Dim], Dim]] = {"Identity": lambda a: a, "Neg": lambda a: -a, "Not": lambda a: 1 - a}


@op(*_UNARY)
def _unary(site: Site) -> Out:
    name, given = site.node.op_type, site.fact(0)
    function = _FOLLOWED.get(name)
    ints = None if function is None or given.ints is None else tuple(map(function, given.ints))
    return Out(given.shape, ir.DataType.BOOL if name in _TO_BOOL else given.dtype, ints)


@op(*_BINARY)
def _binary(site: Site) -> Out:
    name = site.node.op_type
    dtype = ir.DataType.BOOL if name in _TO_BOOL else site.dtype()
    return Out(broadcast(*map(site.shape, range(len(site.inputs)))), dtype, _computed(site))


def _computed(site: Site) -> tuple[Dim, ...] | None:
    function, columns = _ARITHMETIC.get(site.node.op_type), site.columns()
    if function is None or columns is None:
        return None
    count = _broadcast_count(columns)
    result = _stretched(columns[0], count)
    try:
        for column in columns[1:]:
            result = tuple(map(function, result, _stretched(column, count)))
    except UnknownError:
        return None
    return result


def _broadcast_count(columns: Sequence[tuple[Dim, ...]]) -> int:
    lengths = {len(column) for column in columns} - {1}
    if len(lengths) > 1:
        raise UnknownError
    return lengths.pop() if lengths else 1


@op("Where")
def _where(site: Site) -> Out:
    shape = broadcast(site.shape(0), site.shape(1), site.shape(2))
    columns = site.columns()
    if columns is None or plain(columns[0]) is None:
        return Out(shape, site.dtype(1))
    count = _broadcast_count(columns)
    condition, yes, no = (_stretched(column, count) for column in columns)
    return Out(shape, site.dtype(1), tuple(a if c else b for c, a, b in zip(condition, yes, no, strict=True)))


@op("Cast")
def _cast(site: Site) -> Out:
    to = ir.DataType(site.attr("to"))
    ints = site.fact(0).ints
    if ints is not None and to == ir.DataType.BOOL:
        return Out(site.fact(0).shape, to, tuple(map(_truth, ints)) if _all_decided(ints) else None)
    return Out(site.fact(0).shape, to, ints if to in (ir.DataType.INT64, ir.DataType.INT32) else None)


def _all_decided(ints: tuple[Dim, ...]) -> bool:
    return all(isinstance(value, int) or at_least(value, 1) for value in ints)


@op("CastLike")
def _cast_like(site: Site) -> Out:
    return Out(site.fact(0).shape, site.dtype(1))


@op("Dropout")
def _dropout(site: Site) -> tuple[Out, Out]:
    return Out(site.fact(0).shape, site.dtype()), Out(site.fact(0).shape, ir.DataType.BOOL)
