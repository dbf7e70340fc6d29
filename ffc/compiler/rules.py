"""Rewrites declared as pairs of programs, each in one place, and applied until none fits any more.

Both sides of a rule can be run, so a rule is proved alone, on samples that it carries, before any model meets it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc.compiler.log import Log
from ffc.compiler.matcher import Match, search
from ffc.errors import CannotApplyError
from ffc.graph.dialect.edit import Editor, constant
from ffc.graph.dialect.function import Function
from ffc.graph.dialect.trace import Program, as_tensor, trace

__all__ = [
    "Condition", "Draw", "Rule", "Sample", "apply", "by_root", "find_match", "flags", "integers", "is_constant",
    "is_scalar", "is_small", "normal", "nothing_for_one_query", "rank", "rule",
]  # fmt: skip

_MAX_SWEEPS = 64
"""An encoder takes a handful; more means rules that undo each other."""

Condition = Callable[[Match], str | None]
"""Returns None where it holds, else the reason in words."""

Draw = Callable[[np.random.Generator], np.ndarray]
"""Makes an array of a sample anew each time."""


@dataclass(frozen=True)
class Sample:
    """Tensors for the left side of a rule: arrays, literals as in a program, or what draws them, such as `normal`.

    Attributes:
        inputs: Those that are graph inputs, by parameter name.
        constants: Those that are initializers.
        attributes: Attributes of the left side.
        matches: False for a near-miss, which must be left alone.
    """

    inputs: Mapping[str, Any]
    constants: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    matches: bool = True

    def drawn(self, random: np.random.Generator) -> Sample:
        """Return this sample with an array for each of its tensors."""

        def draw(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
            return {name: item(random) if callable(item) else as_tensor(item).numpy() for name, item in tensors.items()}

        return replace(self, inputs=draw(self.inputs), constants=draw(self.constants))


def normal(*shape: int, mean: float = 0.0, scale: float = 1.0) -> Draw:
    """Draw float32 numbers of a normal distribution."""
    return lambda random: (mean + scale * random.standard_normal(shape)).astype(np.float32)


def integers(low: int, high: int, *shape: int, dtype: type[np.integer[Any]] = np.int64) -> Draw:
    """Draw integers from `low` to below `high`."""
    return lambda random: random.integers(low, high, shape, dtype)


def flags(*shape: int, share: float = 0.5) -> Draw:
    """Draw booleans, of which about `share` are set, and the first of each row always: as masks of tokens are."""
    return lambda random: (random.random(shape) < share) | (np.arange(shape[-1]) == 0)


def nothing_for_one_query(batch: int, planes: int, tokens: int, share: float = 0.7) -> Draw:
    """Draw flags [batch, planes, tokens, tokens] of the keys that each query sees: some, and one query none."""

    def draw(random: np.random.Generator) -> np.ndarray:
        shape = (batch, planes, tokens, tokens)
        keep = (random.random(shape) < share) | np.eye(tokens, dtype=np.bool_)
        keep[:, :, random.integers(tokens)] = False
        return keep

    return draw


@dataclass(frozen=True)
class Rule:
    """One rewrite, as `rule` declares it.

    Attributes:
        name: What reports call it.
        match: The program to look for; its result must have one output.
        rewrite: The program to put in its place. It takes tensors of `match` by name, and those that `bind` computes.
        samples: Inputs that match, and near-misses that must not.
        where: Conditions on a match.
        bind: Computes further tensors (arrays) and attributes of `rewrite` from a match.
        shared: Whether values inside the match may have other consumers; they are then computed twice.
    """

    name: str
    match: Program
    rewrite: Program
    samples: Sequence[Sample]
    where: Sequence[Condition] = ()
    bind: Callable[[Match], Mapping[str, Any]] | None = None
    shared: bool = False


def rule(
    name: str,
    rewrite: Program | Function,
    *,
    samples: Sequence[Sample],
    where: Sequence[Condition] = (),
    bind: Callable[[Match], Mapping[str, Any]] | None = None,
    shared: bool = False,
) -> Callable[[Program], Rule]:
    """Make a `Rule` of the program below, which is what to look for.

    A function as `rewrite` is called there, on the tensors and attributes of its body; all else is as in `Rule`.
    """
    program = rewrite.call if isinstance(rewrite, Function) else rewrite
    return lambda match: Rule(name, match, program, samples, where, bind, shared)


def is_constant(*names: str) -> Condition:
    """Condition: each of these tensors is an initializer."""

    def holds(match: Match) -> str | None:
        free = next((name for name in names if constant(match.values[name]) is None), None)
        return None if free is None else f"{free} ({match.values[free].name}) is not constant"

    return holds


def is_scalar(name: str) -> Condition:
    """Condition: this tensor is a constant of one element."""

    def holds(match: Match) -> str | None:
        array = constant(match.values[name])
        return None if array is not None and array.size == 1 else f"{name} is not one constant number"

    return holds


def is_small(name: str) -> Condition:
    """Condition: this tensor, found constant, is one small number above 0, as the epsilon of a norm is."""

    def holds(match: Match) -> str | None:
        small = match.array(name).size == 1 and 0 < match.number(name) < 1e-2
        return None if small else f"{name} is not one small number"

    return holds


def rank(name: str, expected: int) -> Condition:
    """Condition: this constant has so many axes."""

    def holds(match: Match) -> str | None:
        found = match.array(name).ndim
        return None if found == expected else f"{name} has {found} axes, not {expected}"

    return holds


def find_match(rule: Rule, root: ir.Node, editor: Editor) -> tuple[Match | None, int, str]:
    """Try `rule` at `root`, and return what `search` does."""
    return search(trace(rule.match), root, editor, functools.partial(_refused, rule))


def _refused(rule: Rule, match: Match) -> str | None:
    first, *others = match.root.outputs
    if any(value.uses() or value.is_graph_output() for value in others):
        return f"another output of {match.root.op_type} {match.root.name} is read"
    if not (first.uses() or first.is_graph_output()):
        return "nothing reads it"
    inside = set(match.nodes.values())
    if not rule.shared:
        for value in (value for node in inside if node is not match.root for value in node.outputs):
            if value.is_graph_output():
                return f"{value.name} is also an output of the model"
            if any(use.node not in inside for use in value.uses()):
                return f"{value.name} is also read elsewhere"
    return _added_axes(match) or next((why for check in rule.where if (why := check(match)) is not None), None)


def _added_axes(match: Match) -> str | None:
    """Say which literal has more axes than what is computed: written as a plain number, its axes would be lost."""
    bound = set(match.values.values())
    inputs = [value for node in match.nodes.values() for value in node.inputs if value is not None]
    arrays = [(value.name, constant(value)) for value in inputs if value not in bound]
    literals = [(name, array.ndim) for name, array in arrays if array is not None and array.size == 1 < array.ndim]
    if not literals:  # as nearly always: shapes need not be inferred
        return None
    shapes = [match.editor.shapes.of(value) for value in bound if constant(value) is None]
    least = min((0 if shape is None else len(shape) for shape in shapes), default=0)
    wide = ((name, axes) for name, axes in literals if axes > least)
    return next((f"the constant {name} has {axes} axes, more than what it is applied to" for name, axes in wide), None)


def by_root(rules: Iterable[Rule]) -> Mapping[tuple[str, str], Sequence[Rule]]:
    """Return, by domain and name of an operator, the rules whose left side it computes, in the order of the table."""
    table: dict[tuple[str, str], list[Rule]] = {}
    for rule in rules:
        root = trace(rule.match).outputs[0].producer()
        assert root is not None
        table.setdefault((root.domain, root.op_type), []).append(rule)
    return table


def apply(rules: Sequence[Rule], model: ir.Model, log: Log, editor: Editor | None = None) -> int:
    """Apply `rules` to the main graph until none matches any more, the first that matches a node first.

    Args:
        rules: The table.
        model: Changed in place.
        log: Counts each rule under its name; near misses go there too.
        editor: An editor of `model` that knows its shapes already.

    Returns:
        The number of rewrites.

    Raises:
        CannotApplyError: If they never come to an end.
    """
    table, total, editor = by_root(rules), 0, editor or Editor(model)
    for _ in range(_MAX_SWEEPS):
        count = sum(_apply_at(node, table, editor, log) for node in list(model.graph))
        total += count
        if not count:
            return total
    names = ", ".join(sorted({rule.name for rule in rules} & log.done.keys()))
    raise CannotApplyError(f"rules still match after {_MAX_SWEEPS} sweeps ({names}): what they write, they match again")


def _apply_at(node: ir.Node, table: Mapping[tuple[str, str], Sequence[Rule]], editor: Editor, log: Log) -> bool:
    if node.graph is None:  # removed by an earlier rewrite of this sweep
        return False
    for rule in table.get((node.domain, node.op_type), ()):
        match, depth, why = find_match(rule, node, editor)
        if match is None:
            if depth > 1:
                log.missed(f"{node.op_type} {node.name}", f"rule {rule.name}: {why}", depth)
            continue
        if not log.takes(rule.name, node.outputs[0].name):
            continue
        extra = dict(rule.bind(match)) if rule.bind else {}
        fragment = trace(rule.rewrite)
        inputs = {name: extra.get(name, match.values.get(name)) for name in fragment.inputs}
        found = {**match.attributes, **extra}
        attributes = {name: found[name] for name in fragment.attributes if name in found}
        editor.splice(rule.rewrite, inputs, attributes, replaces=node.outputs[0], rule=rule.name)
        log.did(rule.name)
        return True
    return False
