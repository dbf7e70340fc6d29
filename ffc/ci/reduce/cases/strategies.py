"""In which order a case is made smaller: what makes every further try cheaper comes first."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import onnx_ir as ir

from ffc.ci.reduce.cases import shrinking, stages
from ffc.ci.reduce.cases.cutting import Anatomy
from ffc.ci.reduce.cases.deltas import first_that_holds, minimise
from ffc.ci.reduce.cases.search import OutOfTimeError, Search
from ffc.compiler import syntax
from ffc.compiler.library import Library
from ffc.compiler.passes import Pass

__all__ = ["shrink"]

_SMALL = (1, 2, 3, 4, 8)
"""Sizes to try before halves."""


def shrink(search: Search, library: Library, target: str, seconds: float) -> bool:
    """Make the best case of `search` as small as can be, a try taking `seconds` at most; whether the time sufficed."""
    try:
        if search.condition.by_passes:
            _shorten(search, library)
        search.first(_static(search.best.model))
        _window(search)
        _to_the_end(search)
        if len(search.best.passes) > 1 and _last_pass_alone(search, library, target, seconds):
            _to_the_end(search)
    except OutOfTimeError:
        return False
    return True


def _to_the_end(search: Search) -> None:
    """Go round until nothing more can go."""
    before = ""
    while before != search.digest():
        before = search.digest()
        _outputs(search)
        _nodes(search)
        _bypass(search)
        search.first(_static(search.best.model))
        _sizes(search)
        _weights(search)
    if search.condition.by_passes:
        _default_options(search)


def _last_pass_alone(search: Search, library: Library, target: str, seconds: float) -> bool:
    """Take the model as it is before the pass that fails, which is a model like others, and that pass alone."""
    best, step = search.best, search.wanted.step
    failing = [item for item in best.passes if item.name == step][:1]
    return bool(failing) and search.case(stages.before(best, step, library, target, seconds), failing)


def _shorten(search: Search, library: Library) -> None:
    """Leave passes out; those that others need run all the same."""
    passes, step = search.best.passes, search.wanted.step
    asked = [item for item in passes if item.name == step]
    inserted = [library[step]()] if step in library and not asked and step not in ("opset", "lower") else []
    if search.passes(asked[:1] or inserted):
        return
    last = max((place for place, item in enumerate(passes) if item.name == step), default=len(passes) - 1)
    search.passes(passes[: last + 1])
    minimise(search.best.passes, search.passes)


def _default_options(search: Search) -> None:
    """Give options the values that need not be written."""
    for place, item in enumerate(search.best.passes):
        for plainer in _plainer(item):
            search.passes([*search.best.passes[:place], plainer, *search.best.passes[place + 1 :]])


def _plainer(item: Pass) -> Iterator[Pass]:
    for name, kind in syntax.kinds(type(item)).items():
        if not kind.required and getattr(item, name) != kind.default:
            with contextlib.suppress(ValueError, TypeError):  # a pass may refuse options that do not go together
                yield dataclasses.replace(item, **{name: kind.default})


def _static(model: ir.Model) -> Iterator[ir.Model | None]:
    """Yield the model with free dimensions fixed and shapes as constants, and with the one of them that can be had."""
    fixed = shrinking.fixed(model)
    if fixed is not None:
        yield Anatomy(fixed).folded()
        yield fixed
    yield Anatomy(model).folded()


def _window(search: Search) -> None:
    """Cut off what comes after the place that matters, and then what comes before it, by bisection."""
    anatomy = Anatomy(search.best.model)
    first_that_holds(0, len(anatomy.nodes), lambda end: search.model(anatomy.cut(range(end))))
    anatomy = Anatomy(search.best.model)
    count = len(anatomy.nodes)
    first_that_holds(0, count, lambda kept: search.model(anatomy.cut(range(count - kept, count))))


def _outputs(search: Search) -> None:
    anatomy = Anatomy(search.best.model)
    places = range(len(search.best.model.graph.outputs))
    minimise(places, lambda kept: search.model(anatomy.with_outputs(kept)), least=1)


def _nodes(search: Search) -> None:
    anatomy = Anatomy(search.best.model)
    minimise(range(len(anatomy.nodes)), lambda kept: search.model(anatomy.cut(kept)), least=1)


def _bypass(search: Search) -> None:
    """Let operands stand for results, from the last node to the first."""
    index = search.best.nodes
    while index > 0:
        index = min(index, search.best.nodes) - 1
        if index >= 0:
            search.first(Anatomy(search.best.model).bypasses(index))


def _sizes(search: Search) -> None:
    """Make dimensions smaller, the largest first: to a few, or by halves while that goes."""
    for size in shrinking.sizes(search.best.model):
        now = size
        while now > 1 and search.first(_resized(search.best.model, now)):
            now = next((each for each in shrinking.sizes(search.best.model) if each < now), 1)


def _resized(model: ir.Model, size: int) -> Iterator[ir.Model]:
    """Yield the model with a size of it smaller, alone or with one that is a multiple or a divisor of it."""
    others = [other for other in shrinking.sizes(model) if other != size]
    for small in (*(each for each in _SMALL if each < size), size // 2):
        yield shrinking.resized(model, {size: small})
        for part in others:
            if size % part == 0 and small * part < size:  # a hidden size of heads
                yield shrinking.resized(model, {size: small * part})
    if size // 2 > _SMALL[-1]:
        yield shrinking.resized(model, {size: size // 2}, tail=True)
    for whole in others:
        if whole % size == 0:
            yield shrinking.resized(model, {size: 2, whole: whole // size * 2})


def _weights(search: Search) -> None:
    """Fill weights with plain numbers, all that can be at once."""
    for filling in shrinking.FILLINGS:
        _fill(search, filling)


def _fill(search: Search, filling: str) -> None:
    model = search.best.model
    weights = model.graph.initializers.items()
    names = [name for name, value in weights if not shrinking.is_simple(value.const_value, filling)]
    minimise(names, lambda kept: search.model(shrinking.simplified(model, set(names) - set(kept), filling)))
