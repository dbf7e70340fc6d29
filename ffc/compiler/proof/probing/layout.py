"""The dimensions of the inputs of a model, and sizes for those that are free: equal where names say that they are."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.probing.demands import demanded
from ffc.graph.shapes.dim import Dim, DimTooLargeError, evaluate, symbol, symbols

__all__ = ["Layout", "counts_tokens", "layout_of", "named"]

_OPERATORS: Mapping[type[ast.operator], Callable[[Dim, Dim], Dim]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
}

_LONGEST = 200
"""A name longer than this is a name and no sum."""


@dataclass(frozen=True)
class Layout:
    """The dimensions of inputs, of which one that has no name bears that of its input and axis, as in ``ids.1``.

    Attributes:
        shapes: The dimensions of each input; an input of unknown rank has none.
        rows: The symbols that count rows of a batch.
        others: The other symbols.
        fixed: Sizes that weights ask of symbols.
    """

    shapes: Mapping[str, tuple[Dim, ...]]
    rows: frozenset[str]
    others: tuple[str, ...]
    fixed: Mapping[str, int] = field(default_factory=dict)

    def sizes(self, batch: int, length: int, other: int | None = None) -> dict[str, int]:
        """Return a size for each symbol: `length` for what counts no rows, `other` for all but the first of it."""
        found = dict.fromkeys(self.rows, batch) | dict.fromkeys(self.others, length if other is None else other)
        return found | dict.fromkeys(self.others[:1], length) | dict(self.fixed)

    def shape(self, name: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape of an input for given sizes of symbols; no size is below 0."""
        return tuple(max(0, evaluate(dim, sizes)) for dim in self.shapes[name])

    def bind(self, feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Return the size of each symbol in arrays of inputs, 1 where they do not tell."""
        pairs = [pair for name, dims in self.shapes.items() for pair in zip(dims, feeds[name].shape, strict=False)]
        found: dict[str, int] = {}
        for dim, size in sorted(pairs, key=lambda pair: len(symbols(pair[0]))):
            unknown = [name for name in symbols(dim) if name not in found]
            if len(unknown) == 1:
                none, one = (evaluate(dim, found | {unknown[0]: number}) for number in (0, 1))
                found[unknown[0]] = (size - none) // (one - none) if one != none else 1
        return dict.fromkeys((*self.rows, *self.others), 1) | found


def layout_of(model: ir.Model) -> Layout:
    """Read the dimensions of the inputs of `model`."""
    shapes = {str(value.name): tuple(_dims(value)) for value in model.graph.inputs}
    met = list(dict.fromkeys(name for dims in shapes.values() for dim in dims for name in sorted(symbols(dim))))
    first = {name for dims in shapes.values() if dims for name in symbols(dims[0])}
    inner = {name for dims in shapes.values() for dim in dims[1:] for name in symbols(dim)}
    rows = (first - inner) | set(_settled(shapes, first & inner)) | set(_states(shapes))
    fixed = {
        str(dims[axis]): size
        for value in model.graph.inputs
        for dims in [shapes[str(value.name)]]
        for axis, size in demanded(value).items()
        if str(dims[axis]) in met and str(dims[axis]) not in rows
    }
    return Layout(shapes, frozenset(rows), tuple(name for name in met if name not in rows), fixed)


def named(text: str) -> Dim:
    """Return the dimension that a name stands for: a sum or product of others, as optimum writes them, or itself."""
    try:
        found = _parsed(ast.parse(text.strip(), mode="eval").body) if len(text) <= _LONGEST else 0
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, DimTooLargeError, RecursionError, MemoryError):
        found = 0
    return found if symbols(found) else symbol(text, least=1)


def counts_tokens(dim: Dim, length: Dim) -> bool:
    """Whether a dimension counts the tokens that `length` counts, or the last of them: one term of a sum."""
    if isinstance(dim, int) or isinstance(length, int):
        return dim == length
    return dim == length or set(dim.terms) < set(length.terms)


def _dims(value: ir.Value) -> Iterator[Dim]:
    for axis, dim in enumerate(value.shape or ()):
        if isinstance(dim, int) and dim >= 0:
            yield dim
        else:
            name = None if isinstance(dim, int) else dim.value
            yield named(name) if name else symbol(f"{value.name}.{axis}", least=1)


def _parsed(node: ast.expr) -> Dim:
    match node:
        case ast.BinOp(left, op, right):
            return _OPERATORS[type(op)](_parsed(left), _parsed(right))
        case ast.Constant(int(number)):
            return number
        case ast.Name() | ast.Attribute():
            return symbol(ast.unparse(node), least=1)
    raise ValueError


def _states(shapes: Mapping[str, tuple[Dim, ...]]) -> Iterator[str]:
    """Yield nameless symbols that count rows though they are second, as in states of a recurrence: [layers, B, W]."""
    for name, dims in shapes.items():
        free = [str(dim) for dim in dims if not isinstance(dim, int)]
        others = [other for key, other in shapes.items() if key != name and other]
        if len(dims) == 3 and free == [f"{name}.1"] and any(str(other[0]).endswith(".0") for other in others):
            yield free[0]


def _settled(shapes: Mapping[str, tuple[Dim, ...]], open_names: set[str]) -> Iterator[str]:
    """Yield those of some symbols, which are first in one input and further back in another, that count rows.

    Inputs of two dimensions tell, [batch, tokens]; then what stands first alone. In a square it counts no rows.
    """
    squares = {name for dims in shapes.values() for dim in dims[1:] if dim in dims[:1] for name in symbols(dim)}
    tokens = set(squares)
    for dims in sorted(shapes.values(), key=lambda dims: len(dims) != 2):
        first = symbols(dims[0]) & open_names if dims else frozenset()
        if first and not first & tokens:
            yield from first
            tokens |= {name for dim in dims[1:] for name in symbols(dim)} - first
