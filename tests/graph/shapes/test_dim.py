"""Symbolic dimensions: canonical form, exact division, bounds and limits, and agreement with plain integers."""

from __future__ import annotations

import itertools

import pytest

from ffc.graph.shapes.dim import (
    Dim,
    DimTooLargeError,
    Expr,
    at_least,
    bounds,
    ceildiv,
    evaluate,
    maximum,
    minimum,
    product,
    symbol,
    symbols,
)

B = symbol("batch", least=1)
S = symbol("seq", least=1)
U = symbol("u")


def test_equal_expressions_are_equal_and_hash_alike() -> None:
    left, right = (B + 1) * (S + 2), 2 + S + B * 2 + S * B
    assert left == right
    assert hash(left) == hash(right)
    assert minimum(512, S) == minimum(S, 512)


def test_constant_results_are_plain_integers() -> None:
    results = [S - S, (S + 3) - S, S * 0, (B * S) // (S * B), minimum(S, 1), maximum(1, 3), 0 * B]
    assert results == [0, 3, 0, 1, 1, 3, 0]
    assert all(type(result) is int for result in results)


@pytest.mark.parametrize(
    ("a", "b", "quotient"),
    [
        (B * S * 96, B * 4, 24 * S),
        (96 * B * S + 96 * B, S + 1, 96 * B),
        ((S + 1) * (B + 2), B + 2, S + 1),
        (4 * S + 3, 4, S),
        (-S, 1, 0 - S),
    ],
)
def test_division_without_rest_is_exact(a: Dim, b: Dim, quotient: Dim) -> None:
    assert a // b == quotient


def test_division_with_a_rest_is_opaque_but_canonical() -> None:
    assert (4 * B + S + 7) // 4 == B + (3 + S) // 4 + 1
    assert ceildiv(S, 2) == (S - 1) // 2 + 1
    assert str((S + 3) // 4) == "(seq + 3)//4"
    assert evaluate((S + 3) // 4 * B, {"seq": 6, "batch": 5}) == 10


def test_division_by_zero_is_refused() -> None:
    with pytest.raises(ZeroDivisionError):
        S // (B - B)


def test_operands_that_cannot_win_are_left_out() -> None:
    assert minimum(S, S + 1) == S
    assert maximum(0, S - 1) == S - 1
    assert maximum(0, U - 1) != U - 1  # u may be 0
    assert minimum(minimum(512, S), S) == minimum(512, S)
    assert maximum(S, minimum(512, S)) == S


def test_bounds_and_order_are_decided_only_where_certain() -> None:
    assert bounds(2 * S + 3) == (5, None)
    assert bounds(minimum(512, S)) == (1, 512)
    assert bounds(5 - S) == (None, 4)
    assert at_least(S, minimum(2, S))
    assert not at_least(S, B)
    assert not at_least(U, 1)


def test_text_and_symbols() -> None:
    assert str(2 * S * S - 3 * B + 1) == "2*seq*seq - 3*batch + 1"
    assert str(minimum(512, S)) == "min(512, seq)"
    assert symbols(minimum(512, S) * B + 4) == {"seq", "batch"}
    assert symbols(7) == frozenset()


def test_evaluation_needs_every_symbol() -> None:
    with pytest.raises(KeyError, match="seq"):
        evaluate(B + S, {"batch": 2})


def test_arithmetic_agrees_with_integers() -> None:
    values = {"batch": 3, "seq": 7, "u": 0}
    operands: list[Dim] = [0, 1, 4, B, S, U, B + S, 2 * S - 1, minimum(4, S), (S + 1) // 2]
    for a, b in itertools.product(operands, repeat=2):
        x, y = evaluate(a, values), evaluate(b, values)
        assert evaluate(a + b, values) == x + y
        assert evaluate(a - b, values) == x - y
        assert evaluate(a * b, values) == x * y
        assert evaluate(minimum(a, b), values) == min(x, y)
        assert evaluate(maximum(a, b), values) == max(x, y)
        assert not at_least(a, b) or x >= y
        if y > 0:
            assert evaluate(a // b, values) == x // y


def test_runaway_expressions_are_refused() -> None:
    with pytest.raises(DimTooLargeError):
        product([S] * 100)
    with pytest.raises(DimTooLargeError):
        product(symbol(f"a{i}") + symbol(f"b{i}") for i in range(10))
    wide: Dim = S
    with pytest.raises(DimTooLargeError):
        for _ in range(4):
            wide = sum((wide + 1) // prime for prime in (3, 5, 7, 11, 13, 17, 19))
    nested: Dim = S
    with pytest.raises(DimTooLargeError):
        for _ in range(20):
            nested = (nested + 1) // 2
    assert isinstance(nested, Expr)
