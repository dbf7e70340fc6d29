"""Any order of up to three passes of the library gives a right model or a clear refusal."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import ffc
from ffc.compiler.library import builtin_folder
from ffc.compiler.syntax import parse
from ffc.graph.text import text
from tests.classifiers import classifier
from tests.graphs import LIBRARY, Stock, difference, feeds, masks
from tests.shared_steps import shared_steps, unshared_steps

PASSES = {
    "clean": "clean",
    "deadtokens": "deadtokens",
    "dequantize": "dequantize",
    "fp16": "fp16",
    "fuse": "fuse",
    "int8": "int8",
    "lower": "lower",
    "opset": "opset",
    "prune": "prune{by=norm heads=0.5 ffn=0.5}",
    "relu": "relu",
    "widen": "widen",
}
"""Every pass of the library, by its file, with options under which it applies to the model of this test."""

IDLE = {"dequantize"}
"""Passes with nothing to do here: no other tool has quantised the model of this test."""

NOT_AFTER = {name: {"fp16", "int8"} for name in ("deadtokens", "dequantize", "prune", "relu")}
"""Passes that refuse anywhere after certain others; what is named nowhere here must never refuse."""

COSINE = 0.9
"""What passes with budgets, up to three of them, may move the outputs by."""

PROBES = [feeds(mask) for length in (1, 2, 7) for mask in masks(3, length).values()]


def orders(first: str) -> Iterator[tuple[str, ...]]:
    """Yield every order of up to three passes that starts with `first`, of two where one has nothing to do."""
    for rest in range(3):
        for names in itertools.product(PASSES, repeat=rest):
            if rest < 2 or not IDLE & {first, *names}:
                yield (first, *names)


def must_refuse(order: Sequence[str]) -> bool:
    """Whether a pass of `order` stands after one that it refuses to follow; nothing follows `lower`."""
    return "lower" in order[:-1] or any(
        before in NOT_AFTER.get(name, ()) for index, name in enumerate(order) for before in order[:index]
    )


@pytest.fixture(scope="module", autouse=True)
def _shared_steps() -> Iterator[None]:
    """Run and prove a step once for all orders that come to it."""
    with shared_steps():
        yield


def compiled(order: Sequence[str]) -> ffc.Result:
    return ffc.compile(source(), ",".join(PASSES[name] for name in order))


@functools.cache
def source() -> Any:
    return classifier()


_OUTPUTS: dict[int, tuple[Any, list[dict[str, np.ndarray]]]] = {}


def outputs(model: Any) -> list[dict[str, np.ndarray]]:
    """Return what stock onnxruntime makes of a model on full, right-padded, left-padded and holed masks."""
    if id(model) not in _OUTPUTS:
        stock = Stock(model)
        _OUTPUTS[id(model)] = model, [stock(inputs) for inputs in PROBES]
    return _OUTPUTS[id(model)][1]


@functools.cache
def reference(prunings: int) -> list[dict[str, np.ndarray]]:
    """Return the outputs of the model after being pruned so many times and nothing else."""
    return outputs(compiled(["prune"] * prunings).model if prunings else source())


def fault(order: Sequence[str]) -> str | None:
    """Return what is wrong with what `order` comes to, or None."""
    try:
        result = compiled(order)
    except (ffc.CannotApplyError, ffc.UsageError) as error:
        one_line = "\n" not in str(error) and len(str(error)) > 20
        return None if must_refuse(order) and one_line else f"refused: {error}"
    except ffc.FfcError as error:
        return f"{type(error).__name__}: {error}"
    if must_refuse(order):
        return "not refused"
    return _distance(order, reference(order.count("prune")), outputs(result.model))


def _distance(
    order: Sequence[str], before: list[dict[str, np.ndarray]], after: list[dict[str, np.ndarray]]
) -> str | None:
    worst = max(difference(one, other) for one, other in zip(before, after, strict=True))
    budgets = [name for name in order if name not in IDLE and isinstance(parse(PASSES[name], LIBRARY)[0].contract, ffc.Budget)]
    if not budgets:
        return None if worst < 1e-4 else f"outputs differ by {worst:.3g}"
    one, other = (np.concatenate([row for found in rows for row in found["logits"]]) for rows in (before, after))
    cosine = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    return None if cosine > COSINE else f"cosine {cosine:.3f}"


def test_every_pass_of_the_library_is_among_them() -> None:
    places = {place.stem for place in builtin_folder().glob("[!_]*")}
    assert places == set(PASSES)
    assert {parse(given, LIBRARY)[0].name for given in PASSES.values()} == {*places} <= {*LIBRARY}


@pytest.mark.parametrize("first", PASSES)
def test_every_order_is_right_or_refused(first: str) -> None:
    found = {",".join(order): wrong for order in orders(first) if (wrong := fault(order)) is not None}
    assert not found, "\n".join(f"{order}: {wrong}" for order, wrong in found.items())


@pytest.mark.parametrize("first", ["deadtokens", "prune"])
def test_what_must_come_before_int8_says_so(first: str) -> None:
    with pytest.raises(ffc.CannotApplyError, match=rf"^'{first}' comes after 'int8' in the pipeline; put it before$"):
        compiled(["int8", first])


def test_passes_do_change_the_model_in_these_orders() -> None:
    """No order is right for want of anything to do."""
    for name in PASSES.keys() - IDLE:
        before = ["fuse", "fp16"] if name == "widen" else ["fuse"]  # widen is for what computes in half
        steps = compiled([*before, name]).report.steps
        assert any(step.changes for step in steps if step.text.startswith(name)), name
    budget = [name for name in PASSES.keys() - IDLE if isinstance(parse(PASSES[name], LIBRARY)[0].contract, ffc.Budget)]
    for name in ["prune", *budget]:
        assert max(map(difference, reference(0), outputs(compiled([name]).model))) > 1e-4, name


@pytest.mark.parametrize("order", [("int8", "fuse"), ("deadtokens", "prune", "int8")])
def test_sharing_steps_between_orders_changes_nothing(order: tuple[str, ...]) -> None:
    shared = text(compiled(order).model)
    with unshared_steps():
        assert text(compiled(order).model) == shared
