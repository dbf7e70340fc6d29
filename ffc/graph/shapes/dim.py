"""Symbolic dimensions: integers and integer polynomials over named sizes, in a form where equal means equal.

sympy 1.14 was tried instead: it took 96 times as long for a product, a quotient and a maximum (13.4 against 0.14 ms,
``examples/benchmarks/libraries.py``), and lets an expression grow without limit, to 1014 terms and a second by four
squarings, which a hostile graph would make use of. It tells more: that batch * length is at least length, for one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, Union

__all__ = ["Call", "Dim", "DimTooLargeError", "Expr", "Symbol", "at_least", "bounds", "ceildiv"]
__all__ += ["evaluate", "maximum", "minimum", "product", "symbol", "symbols"]

# Limits on what a hostile graph can make an expression grow to; a real encoder stays below a tenth of each.
_MAX_TERMS = 64
_MAX_DEGREE = 32
_MAX_DEPTH = 8
_MAX_ATOMS = 512
_MAX_COEFFICIENT = 2**63


class DimTooLargeError(ArithmeticError):
    """An expression has outgrown what this module is willing to handle."""


@dataclass(frozen=True)
class Symbol:
    """A named size of at least `least` (1 for the axes of graph inputs)."""

    name: str
    least: int = 0

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Call:
    """An operation that is no polynomial: ``min``, ``max`` or ``div`` (floor division) of other dimensions."""

    op: str
    args: tuple[Dim, ...]

    def __str__(self) -> str:
        if self.op == "div":
            return "//".join(str(arg) if _is_plain(arg) else f"({arg})" for arg in self.args)
        return f"{self.op}({', '.join(map(str, self.args))})"


Atom: TypeAlias = Symbol | Call
# A product of atoms, sorted and with repetition; () is the constant 1.
Monomial: TypeAlias = tuple[Atom, ...]
Bounds: TypeAlias = tuple[int | None, int | None]
# Quoted because Expr, below, is made of them.
Dim: TypeAlias = Union[int, "Expr"]


@dataclass(frozen=True)
class Expr:
    """A sum of monomials with non-zero integer coefficients, sorted, and never a mere constant.

    Make one with `symbol` and arithmetic, not by hand: the canonical order is what makes equal expressions equal.
    """

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        total = dict(self.terms)
        for monomial, coefficient in _terms(other):
            total[monomial] = total.get(monomial, 0) + coefficient
        return _build(total)

    def __mul__(self, other: Dim) -> Dim:
        total: dict[Monomial, int] = {}
        factors = _terms(other)
        for left, a in self.terms:
            for right, b in factors:
                monomial = tuple(sorted(left + right, key=str)) if left and right else left + right
                total[monomial] = total.get(monomial, 0) + a * b
        return _build(total)

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: int) -> Dim:
        return -self + other

    def __floordiv__(self, other: Dim) -> Dim:
        return _floordiv(self, other)

    def __rfloordiv__(self, other: int) -> Dim:
        return _floordiv(other, self)

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        text = " + ".join(_term_text(monomial, coefficient) for monomial, coefficient in self.terms)
        return text.replace("+ -", "- ")


def symbol(name: str, least: int = 0) -> Expr:
    """Return the dimension called `name`, known to be at least `least`."""
    return Expr((((Symbol(name, least),), 1),))


def symbols(dim: Dim) -> frozenset[str]:
    """Return the names of all symbols in `dim`."""
    found: set[str] = set()
    for monomial, _ in _terms(dim):
        for atom in monomial:
            found.update({atom.name} if isinstance(atom, Symbol) else frozenset().union(*map(symbols, atom.args)))
    return frozenset(found)


def product(dims: Iterable[Dim]) -> Dim:
    """Return the product of `dims`, 1 if there are none."""
    return math.prod(dims, start=1)


def minimum(*dims: Dim) -> Dim:
    """Return the smallest of `dims`; operands that can never be the smallest are left out."""
    return _extreme("min", dims, at_least)


def maximum(*dims: Dim) -> Dim:
    """Return the largest of `dims`; operands that can never be the largest are left out."""
    return _extreme("max", dims, lambda a, b: at_least(b, a))


def ceildiv(a: Dim, b: int) -> Dim:
    """Return `a` divided by a positive integer `b`, rounded up."""
    return (a + (b - 1)) // b


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int:
    """Return the value of `dim` for the given sizes of its symbols.

    Raises:
        KeyError: a symbol of `dim` has no size.
        ZeroDivisionError: the sizes make a divisor zero.
    """
    return sum(c * math.prod(_evaluate_atom(atom, sizes) for atom in monomial) for monomial, c in _terms(dim))


def bounds(dim: Dim) -> Bounds:
    """Return a lower and an upper bound of `dim` over all sizes of its symbols, None where there is none in sight."""
    if isinstance(dim, int):
        return dim, dim
    lower: int | None = 0
    upper: int | None = 0
    for monomial, coefficient in dim.terms:
        low, high = _monomial_bounds(monomial)
        if coefficient < 0:
            low, high = high, low
        lower = None if lower is None or low is None else lower + coefficient * low
        upper = None if upper is None or high is None else upper + coefficient * high
    return lower, upper


@functools.lru_cache(maxsize=4096)  # every layer asks the same again
def at_least(a: Dim, b: Dim) -> bool:
    """Return whether ``a >= b`` certainly holds; False also stands for "cannot tell"."""
    lower, _ = bounds(a - b)
    if lower is not None and lower >= 0:
        return True
    below, above = _operands("min", b), _operands("max", a)
    if len(below) > 1 and any(at_least(a, operand) for operand in below):
        return True
    return len(above) > 1 and any(at_least(operand, b) for operand in above)


def _is_plain(dim: Dim) -> bool:
    """Return whether the text of `dim` needs no brackets."""
    return isinstance(dim, int) or (len(dim.terms) == 1 and dim.terms[0][1] == 1 and len(dim.terms[0][0]) == 1)


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    return dim.terms if isinstance(dim, Expr) else (((), int(dim)),)


def _order(term: tuple[Monomial, int]) -> tuple[int, tuple[str, ...]]:
    # Graded lexicographic: a monomial order, which the division below relies on.
    return -len(term[0]), tuple(map(str, term[0]))


def _build(total: Mapping[Monomial, int]) -> Dim:
    terms = [(monomial, coefficient) for monomial, coefficient in total.items() if coefficient]
    too_large = len(terms) > _MAX_TERMS or any(len(m) > _MAX_DEGREE or abs(c) > _MAX_COEFFICIENT for m, c in terms)
    if too_large or sum(_weight(atom) for monomial, _ in terms for atom in monomial) > _MAX_ATOMS:
        raise DimTooLargeError("a dimension has grown too large to handle")
    if not terms:
        return 0
    if len(terms) == 1 and not terms[0][0]:
        return terms[0][1]
    return Expr(tuple(sorted(terms, key=_order)))


def _term_text(monomial: Monomial, coefficient: int) -> str:
    if not monomial:
        return str(coefficient)
    alone = len(monomial) == 1 and coefficient == 1
    factors = [str(atom) if alone or isinstance(atom, Symbol) or atom.op != "div" else f"({atom})" for atom in monomial]
    sign = {1: "", -1: "-"}.get(coefficient, f"{coefficient}*")
    return sign + "*".join(factors)


def _call(op: str, args: tuple[Dim, ...]) -> Dim:
    made = Call(op, args)
    if _depth(made) > _MAX_DEPTH or len(args) > _MAX_TERMS:
        raise DimTooLargeError("a dimension is nested too deeply to handle")
    return _build({(made,): 1})


def _weight(atom: Atom) -> int:
    """Return how many atoms there are in `atom`, those in its operands counted each time they occur."""
    if isinstance(atom, Symbol):
        return 1
    return 1 + sum(_weight(inner) for arg in atom.args for monomial, _ in _terms(arg) for inner in monomial)


def _depth(atom: Atom) -> int:
    if isinstance(atom, Symbol):
        return 0
    return 1 + max((_depth(inner) for arg in atom.args for m, _ in _terms(arg) for inner in m), default=0)


def _floordiv(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 0:
        raise ZeroDivisionError(f"{a} is divided by zero")
    if not isinstance(b, int):
        exact = _divide_exactly(a, b)
        return exact if exact is not None else _call("div", (a, b))
    # (b*q + r) // b is q + r // b for every integer q, so whole terms leave the opaque part.
    parts = {monomial: c // b if c % b == 0 or not monomial else 0 for monomial, c in _terms(a)}
    whole = _build(parts)
    rest = a - whole * b
    return whole + (rest // b if isinstance(rest, int) else _call("div", (rest, b)))


def _divide_exactly(a: Dim, b: Expr) -> Dim | None:
    """Return the polynomial q with ``q * b == a``, None if there is none: long division by the leading term."""
    lead, lead_coefficient = b.terms[0]
    quotient: Dim = 0
    while a != 0:
        monomial, coefficient = _terms(a)[0]
        factors = _without(monomial, lead)
        if factors is None or coefficient % lead_coefficient:
            return None
        step = _build({factors: coefficient // lead_coefficient})
        quotient, a = quotient + step, a - step * b
    return quotient


def _without(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    left = list(monomial)
    for atom in divisor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def _operands(op: str, dim: Dim) -> tuple[Dim, ...]:
    """Return the operands if `dim` is nothing but a call of `op`, else `dim` alone."""
    if isinstance(dim, Expr) and len(dim.terms) == 1:
        monomial, coefficient = dim.terms[0]
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Call) and monomial[0].op == op:
            return monomial[0].args
    return (dim,)


def _extreme(op: str, dims: Iterable[Dim], beaten: Callable[[Dim, Dim], bool]) -> Dim:
    kept: list[Dim] = []
    for dim in [operand for given in dims for operand in _operands(op, given)]:
        if any(beaten(dim, other) for other in kept):
            continue
        kept = [other for other in kept if not beaten(other, dim)] + [dim]
    return kept[0] if len(kept) == 1 else _call(op, tuple(sorted(kept, key=str)))


def _evaluate_atom(atom: Atom, sizes: Mapping[str, int]) -> int:
    if isinstance(atom, Symbol):
        return sizes[atom.name]
    args = [evaluate(arg, sizes) for arg in atom.args]
    if atom.op == "div":
        return args[0] // args[1]
    return min(args) if atom.op == "min" else max(args)


def _monomial_bounds(monomial: Monomial) -> Bounds:
    low, high = 1, 1
    unbounded = False
    for atom in monomial:
        atom_low, atom_high = _atom_bounds(atom)
        if atom_low is None or atom_low < 0:
            return None, None
        unbounded |= atom_high is None
        low, high = low * atom_low, high * (atom_high or 0)
    return low, None if unbounded else high


def _atom_bounds(atom: Atom) -> Bounds:
    if isinstance(atom, Symbol):
        return atom.least, None
    lows, highs = zip(*map(bounds, atom.args), strict=True)
    known_lows = [low for low in lows if low is not None]
    known_highs = [high for high in highs if high is not None]
    if atom.op == "min":
        return min(known_lows) if len(known_lows) == len(lows) else None, min(known_highs, default=None)
    if atom.op == "max":
        return max(known_lows, default=None), max(known_highs) if len(known_highs) == len(highs) else None
    return _quotient_bounds((lows[0], highs[0]), (lows[1], highs[1]))


def _quotient_bounds(a: Bounds, b: Bounds) -> Bounds:
    if a[0] is None or a[0] < 0 or b[0] is None or b[0] < 1:
        return None, None
    low = 0 if b[1] is None else a[0] // b[1]
    return low, None if a[1] is None else a[1] // b[0]
