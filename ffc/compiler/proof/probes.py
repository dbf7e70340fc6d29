"""Inputs on which contracts are checked, made from what a graph asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.probing.counted import Counted
from ffc.compiler.proof.probing.demands import numbers_compared
from ffc.compiler.proof.probing.inputs import dtype_of, table_rows
from ffc.compiler.proof.probing.layout import Layout, layout_of
from ffc.compiler.proof.probing.mask_inputs import MASKED, Form
from ffc.compiler.proof.probing.readings import candidates, find_towers, guessed
from ffc.compiler.proof.probing.token_indices import draw_token_indices, holds_token_indices
from ffc.compiler.proof.probing.tower import Meaning, meaning_of
from ffc.errors import CannotApplyError, InputError
from ffc.graph.blocks.masks import widest_window
from ffc.graph.execute import Runner
from ffc.graph.shapes.inference import infer

__all__ = ["Probe", "feeds_at", "make", "understood"]

# Name, batch size, tokens. Every row but the first of a padded case loses tokens.
_CASES = [
    ("full", 1, 8),
    ("full", 2, 33),
    ("right-padded", 3, 12),
    ("left-padded", 3, 12),
    ("holed", 3, 17),
    ("masked row", 3, 9),
]
_SHORT_CASES = [
    ("full", 2, 3),
    ("right-padded", 2, 4),
    ("left-padded", 2, 4),
    ("holed", 2, 4),
    ("masked row", 2, 4),
]

_APART_CASES = [("full", 2, 7), ("right-padded", 2, 11), ("left-padded", 2, 10)]
"""Of a model with tokens along several axes; the second and all after it are shorter by `_APART`."""

_APART = 3

_BEYOND = "left-padded beyond windows"
_BLIND = "blind query"
_LOWS = {MASKED: "", float(np.finfo(np.float32).min): ", lowest float", -np.inf: ", minus infinity"}
"""What a float mask that is added may hold where it hides, and what probes are called by that."""

_WIDEST = 256
"""Windows up to this are told from; a probe that is longer costs too much."""


@dataclass(frozen=True, eq=False)
class Probe:
    """One set of inputs.

    Attributes:
        name: What reports call it.
        feeds: Arrays by input name.
        mask: Which tokens are real, bool [B, S]; None where nothing says so. Of several towers, those of the first.
        required: Whether a model that does not run on it is refused; other probes that it cannot take are left out.
        spare: Whether it is short, and run only where a model cannot take one that is longer.
        whole: Whether it was made to hide nothing.
        counts: What counts of each output; of others that goes by `mask` and by sizes.
    """

    name: str
    feeds: Mapping[str, np.ndarray]
    mask: np.ndarray | None
    required: bool = False
    spare: bool = False
    whole: bool = False
    counts: Mapping[str, Counted] = field(default_factory=dict)

    def counted(self, output: str) -> Counted:
        """Return what counts of an output."""
        return self.counts.get(output) or Counted(self.mask)

    @classmethod
    def of(cls, name: str, feeds: Mapping[str, np.ndarray], meaning: Meaning, **more: bool) -> Probe:
        """Return a probe of inputs that mean what `meaning` says."""
        masks, counts = meaning.counted(feeds)
        return cls(name, feeds, next(iter(masks), None), counts=counts, **more)


def make(
    model: ir.Model, seed: int = 0, meaning: Meaning | None = None, sizes: Sequence[Mapping[str, int]] = ()
) -> list[Probe]:
    """Make probes for `model`.

    There are several batch sizes and lengths, and masks that are full, padded right and left, holed, and with one row
    masked throughout, as far as inputs can say that; where queries see a window alone, also one padded on the left by
    more than that. Ids stay within the tables they index. Fixed dimensions keep their size. A mask per query
    ([B, S, S], [B, 1, S, S], [B, 1, 1, S]) shows each query the same real tokens, or some of them in the holed case;
    in another it shows one query none. A float32 mask that is added goes down to -1e4, the lowest float, and minus
    infinity.

    Args:
        model: The model.
        seed: What is drawn goes by it.
        meaning: What its inputs mean, if that was found out before.
        sizes: Those of its free dimensions, where it does not run at those that are usual.

    Raises:
        InputError: If an input has a type that no probe can be made for.
    """
    random = np.random.default_rng(seed)
    meaning = meaning or understood(model)
    found: dict[str, Probe] = {}
    cases = _at(sizes) if sizes else _cases(meaning.layout, widest_window(model, _WIDEST))
    at = sizes[0] if sizes else meaning.layout.sizes(2, 8)
    for case in (*cases, *_further(model, meaning, at)):
        if case.kind == "full" or meaning.towers:
            feeds = _feeds(model, meaning, case, random)
            name = f"{case.name} {'x'.join(map(str, next(iter(feeds.values())).shape[:2]))}" if feeds else case.name
            found.setdefault(name, Probe.of(name, feeds, meaning, spare=case.spare, whole=case.kind == "full"))
    return list(found.values())


@dataclass(frozen=True)
class _Case:
    """What is hidden, the sizes, whether the probe is spare, and what is added where a float hides."""

    kind: str
    sizes: Mapping[str, int]
    spare: bool = False
    low: float = MASKED

    @property
    def name(self) -> str:
        return f"{self.kind}{_LOWS[self.low]}"


def _cases(layout: Layout, window: int | None) -> Iterator[_Case]:
    beyond = [] if window is None else [(_BEYOND, 2, window + 8)]
    for case in (*_CASES, *beyond, *_SHORT_CASES):
        yield _Case(case[0], layout.sizes(*case[1:]), case in _SHORT_CASES)
    if len(set(layout.others) - set(layout.fixed)) > 1:
        for kind, batch, length in _APART_CASES:
            yield _Case(kind, layout.sizes(batch, length, length - _APART))


def _at(sizes: Sequence[Mapping[str, int]]) -> Iterator[_Case]:
    for kind in dict.fromkeys(kind for kind, *_ in _CASES):
        yield from (_Case(kind, at) for at in sizes)


def _further(model: ir.Model, meaning: Meaning, sizes: Mapping[str, int]) -> Iterator[_Case]:
    """Yield what masks of some kinds alone can say: that a query sees nothing, and how low numbers are that hide."""
    known = meaning.mask_inputs
    told = [(value, known[str(value.name)]) for value in model.graph.inputs if value.name in known]
    adds = any(each.form is Form.ADDED and dtype_of(value) == np.float32 for value, each in told)
    apart = any(each.by_query(meaning.layout.shape(each.name, sizes)) for _, each in told)
    for low in _LOWS if adds else (MASKED,):
        kinds = ["left-padded"] * (low != MASKED) + [_BLIND] * apart
        yield from (_Case(kind, sizes, low=low) for kind in kinds)


def feeds_at(model: ir.Model, meaning: Meaning, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return an array for each input of `model` at given sizes, nothing hidden."""
    return _feeds(model, meaning, _Case("full", sizes), np.random.default_rng(0))


def understood(
    model: ir.Model,
    runner: Runner | None = None,
    given: Sequence[Mapping[str, np.ndarray]] = (),
    sizes: Sequence[Mapping[str, int]] = (),
) -> Meaning:
    """Find out what the inputs of `model` mean, by running it if it runs.

    Args:
        model: The model.
        runner: Runs it, if there is one at hand.
        given: Inputs of the user's own, which it is run on if it runs on none that are made.
        sizes: Those of its free dimensions, where it does not run at those that are usual.

    Raises:
        InputError: If an input has a type that no probe can be made for.
    """
    layout, shapes = layout_of(model), infer(model)
    if not candidates(model, layout):
        return meaning_of(model, layout, guessed(model, layout, named=True), shapes)
    random = np.random.default_rng(0)
    tried = sizes or [layout.sizes(*case) for case in _READ_ON]
    made = (_feeds(model, Meaning(layout), _Case("full", each), random) for each in tried)
    try:
        run = (runner or Runner(model)).run
    except CannotApplyError:
        return meaning_of(model, layout, guessed(model, layout, named=False), shapes)
    for feeds in (*made, *given):
        try:
            run(feeds)
        except CannotApplyError:
            continue
        towers = find_towers(model, layout, run, feeds, shapes) or guessed(model, layout, named=True)
        return meaning_of(model, layout, towers, shapes)
    return meaning_of(model, layout, guessed(model, layout, named=False), shapes)


_READ_ON = [(3, 8), (1, 8), (3, 4)]
"""Rows and tokens that a model is run on to find out what its inputs mean."""


def _feeds(
    model: ir.Model, meaning: Meaning, case: _Case, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return an array for each input: what says which tokens are real, where tokens are, or random numbers."""
    kind, sizes = case.kind, case.sizes
    masks = [_mask(kind, tower.size(sizes), random) for tower in meaning.towers]
    pairs = zip(meaning.towers, masks, strict=True)
    known = {mask_input.name: (mask_input, mask) for tower, mask in pairs for mask_input in tower.masks}
    feeds = {}
    for value in model.graph.inputs:
        name, shape = str(value.name), meaning.layout.shape(str(value.name), sizes)
        mask = next((mask for mask in masks if mask.shape[:1] == shape[:1]), None)
        if name in known:
            mask_input, wanted = known[name]
            parts = random if kind in ("holed", _BLIND) else None
            feeds[name] = mask_input.write(wanted, shape, dtype_of(value), parts, blind=kind == _BLIND, low=case.low)
        elif mask is not None and holds_token_indices(value):
            feeds[name] = draw_token_indices(mask, shape, random).astype(dtype_of(value))
        else:
            feeds[name] = _fill(value, shape, random)
    return feeds


def _fill(value: ir.Value, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    dtype = dtype_of(value)
    if dtype.kind in "iu":
        if np.prod(shape) == 1 and (known := numbers_compared(value)):
            return np.asarray(random.choice(known, shape), dtype)
        return np.asarray(random.integers(0, table_rows(value) or 2, shape), dtype)
    if dtype.kind == "b":
        drawn = np.asarray(random.random(shape) < 0.5)
        if shape:
            drawn[..., :1] = True  # what masks everything has no meaning
        return drawn
    if dtype.kind == "f":
        return np.asarray(random.standard_normal(shape), dtype)
    raise InputError(f"input '{value.name}' is of type {value.dtype}; probes can be made for numbers only")


def _mask(kind: str, shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Return a bool mask [B, S] of the kind named."""
    batch, length = shape
    mask = np.ones(shape, np.bool_)
    for row in range(min(1, batch - 1), batch):
        lost = min(int(random.integers(1, max(2, length // 2))), length - 1)
        if kind == "right-padded":
            mask[row, length - lost :] = False
        elif kind == "left-padded":
            mask[row, :lost] = False
        elif kind == "holed" and row:
            mask[row, random.choice(np.arange(1, length), size=lost, replace=False)] = False
    if kind == "holed":
        mask[0, 1:length:3] = False
    if kind == _BEYOND:  # the first tokens see nothing but padding
        mask[1:, : length - 4] = False
    if kind == "masked row":
        mask[batch // 2] = batch == 1
    return mask
