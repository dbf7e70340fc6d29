"""Functions of the dialect: what each computes, and what the rest of the compiler needs to know of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, TypeVar

import onnx_ir as ir

from ffc.errors import UsageError, nearest
from ffc.graph.dialect.trace import OPSET, Op, Program, Tensor, followed_by, parameters, trace
from ffc.graph.shapes.inference import Shapes

__all__ = ["DOMAIN", "FUNCTIONS", "Family", "Function", "Lowering", "Precision", "called", "carry", "declare"]
__all__ += ["function", "quantises", "register", "with_activations"]

DOMAIN = "ffc"
_VERSION = 1
_BUILT_IN = "ffc.graph.dialect."
_P = TypeVar("_P", bound=Program)

Family: TypeAlias = Literal["product", "attention", "norm", "embedding"]
Precision: TypeAlias = Literal["float32", "half", "int8"]


@dataclass(frozen=True, eq=False)
class Lowering:
    """One way to write a function in a runtime's operators.

    Attributes:
        name: What reports and targets call it.
        target: The target it is for.
        program: It, with the tensors and attributes of the function.
        given: Values that attributes of a call must have.
        ranks: Numbers of axes that the first tensor of a call may have; empty for any.
    """

    name: str
    target: str
    program: Program
    given: Mapping[str, Any] = field(default_factory=dict)
    ranks: Sequence[int] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Function:
    """A building block of an encoder as a model-local function of domain ``ffc``.

    Names below are those of tensors of `body`.

    Attributes:
        name: What calls of it say.
        body: What it computes, in standard operators of opset 23, with one output.
        family: The kind of block that it is, or None.
        by_token: Tensors of which a row of the result, [batch, tokens, ...], needs the same row alone; the others are
            the same for all tokens, or read as a whole.
        weight: The weight of a product, [I, O].
        bias: The bias of a product, [O].
        mask: What is added to the scores of attention, [..., queries, keys].
        skip: The residual connection that is added.
        tables: Tables whose rows are looked up, each with the ids that look them up.
        ends_in_norm: Whether what it computes ends in a norm, though it is more than one.
        activation: The operator that the result of a product goes through; empty for none.
        activate: That operator as a program of one tensor.
        without_activation: The same function without it.
        precision: In what it computes, or stores its tables.
        exact: The function that computes the same with nothing rounded, its tensors named alike; None where it is that.
        scales: Tensors stored as int8, each with the tensor that holds its scales.
        quantises: The tensor that is rounded to int8 as the model runs, with one step for all its rows; empty for none.
        scaled_by_row: Whether each row of that tensor is divided by its largest magnitude before.
        of_any_float: Whether it computes in the type of its tensors, float32 or float16.
        _own_lowerings: What `lowering` has declared.
    """

    name: str
    body: Program
    family: Family | None = None
    by_token: tuple[str, ...] = ()
    weight: str = ""
    bias: str = ""
    mask: str = ""
    skip: str = ""
    tables: Mapping[str, str] = field(default_factory=dict)
    ends_in_norm: bool = False
    activation: str = ""
    activate: Program | None = None
    without_activation: Function | None = None
    precision: Precision = "float32"
    exact: Function | None = None
    scales: Mapping[str, str] = field(default_factory=dict)
    quantises: str = ""
    scaled_by_row: bool = False
    of_any_float: bool = False
    _own_lowerings: list[Lowering] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        named = [*self.by_token, *self.tables, *self.tables.values(), *self.scales, *self.scales.values()]
        named += [name for name in (self.weight, self.bias, self.mask, self.skip, self.quantises) if name]
        for name in named:
            if name not in self.tensors:
                raise UsageError(f"function '{self.name}' has no tensor '{name}'{nearest(name, self.tensors)}")

    def __call__(self, op: Op, *tensors: Tensor, **attributes: Any) -> Tensor:
        """Write the body where another program calls the function."""
        return self.body(op, *tensors, **attributes)  # type: ignore[no-any-return]

    @cached_property
    def call(self) -> Program:
        """The program that calls it, with the tensors and attributes of the body."""

        @functools.wraps(self.body)
        def program(op: Op, *tensors: Tensor, **attributes: Any) -> Any:
            return op.ffc.node(self.name, *tensors, **attributes)

        return program

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """The names of its tensors, in order."""
        return parameters(self.body)[0]

    @property
    def attributes(self) -> Mapping[str, ir.Attr]:
        """Its attributes, each with its default; None where it must be given."""
        return trace(self.body).attributes

    def given(self, call: ir.Node) -> dict[str, ir.Value | None]:
        """Return what a call gives for each tensor, by name."""
        return dict(zip(self.tensors, call.inputs, strict=True))

    def attribute(self, call: ir.Node, name: str) -> Any:
        """Return an attribute of a call, or the default."""
        return call.attributes.get(name, self.attributes[name]).value

    def activated(self, activation: str) -> Function | None:
        """Return the same function with another activation, empty for none; None if there is no such function."""
        plain = self.without_activation or self
        return plain if not activation else FUNCTIONS.get(f"{plain.name}{activation}")

    def rounded(self, precision: Precision, *, by_row: bool = False) -> Function | None:
        """Return the function that computes the same in another precision; None if there is no such function.

        Args:
            precision: Half or int8.
            by_row: Whether the rows of what is quantised shall be scaled one by one.
        """
        if precision == "half" and self.of_any_float:
            return self
        found = (each for each in FUNCTIONS.values() if each.exact is self and each.precision == precision)
        return next((each for each in found if each.scaled_by_row == by_row), None)

    def lowering(
        self, name: str, *, target: str, given: Mapping[str, Any] | None = None, ranks: Sequence[int] = ()
    ) -> Callable[[_P], _P]:
        """Declare the program below as a way to write the function, a `Lowering`; the first that fits a call is taken.

        One of that name for the same target is replaced.
        """

        def declared(program: _P) -> _P:
            entry = Lowering(name, target, program, given or {}, ranks)
            places = {(each.target, each.name): index for index, each in enumerate(self._own_lowerings)}
            place = places.get((target, name), len(places))
            self._own_lowerings[place : place + 1] = [entry]
            return program

        return declared

    @property
    def lowerings(self) -> list[Lowering]:
        """All ways to write it: its own, and those of the same function without activation with that behind them."""
        if self.without_activation is None or self.activate is None:
            return list(self._own_lowerings)
        plain = self.without_activation.lowerings
        programs = [_activated(each.program, self.activate, self.name) for each in plain]
        return [*self._own_lowerings, *(replace(each, program=new) for each, new in zip(plain, programs, strict=True))]

    def ways(self, call: ir.Node, target: str, shapes: Shapes) -> Iterator[Lowering]:
        """Yield the ways to write a call in a graph of `shapes` for a target, the best first; its body always does."""
        first = call.inputs[0]
        shape = None if first is None else shapes.of(first)
        rank = None if shape is None else len(shape)
        for each in self.lowerings:
            fits = not each.ranks or rank in each.ranks
            if each.target == target and fits and all(self.attribute(call, k) == v for k, v in each.given.items()):
                yield each

    @cached_property
    def _traced(self) -> ir.Function:
        fragment = trace(self.body)
        for index, value in enumerate(v for node in fragment.nodes for v in node.outputs):
            value.name = f"v{index}"
        inputs, outputs = list(fragment.inputs.values()), list(fragment.outputs)
        graph = ir.Graph(inputs, outputs, nodes=list(fragment.nodes), opset_imports={"": OPSET})
        return ir.Function(DOMAIN, self.name, graph=graph, attributes=list(fragment.attributes.values()))

    def in_model(self) -> ir.Function:
        """Return it as a model carries it, each time a new one."""
        return self._traced.clone()


@functools.cache
def _activated(program: Program, activate: Program, name: str) -> Program:
    return followed_by(program, activate, name, f"{program.__doc__} An activation follows.")


FUNCTIONS: dict[str, Function] = {}
"""Every function that was declared, by name."""


def declare(function: Function) -> Function:
    """Make a function known, in the place of one of the same name that another file declared before.

    Raises:
        UsageError: If a function of the dialect itself has that name.
    """
    known = FUNCTIONS.get(function.name)
    if known is not None and known.body.__module__.startswith(_BUILT_IN):
        raise UsageError(f"there is a function '{function.name}' in the dialect already; choose another name")
    FUNCTIONS[function.name] = function
    return function


def function(**traits: Any) -> Callable[[Program], Function]:
    """Declare the program below as the body of a function, which has its name.

    Args:
        **traits: What is to be known of it, as the attributes of `Function`.
    """

    def declared(body: Program) -> Function:
        return declare(Function(name=body.__name__, body=body, **traits))

    return declared


def with_activations(plain: Function, activations: Mapping[str, Program]) -> list[Function]:
    """Declare a product with each of some activations behind it, and return those: `Linear` makes `LinearRelu`, say.

    Args:
        plain: The product; where it rounds, the one without rounding has these activations already.
        activations: Programs of one tensor, by the name of their operator.
    """
    found = []
    for activation, program in activations.items():
        name = f"{plain.name}{activation}"
        exact = None if plain.exact is None else plain.exact.activated(activation)
        body = followed_by(plain.body, program, name, f"{activation} of `{plain.name}`.")
        traits: dict[str, Any] = {"activation": activation, "activate": program, "without_activation": plain}
        found.append(declare(replace(plain, name=name, body=body, exact=exact, **traits)))
    return found


def called(node: ir.Node | None) -> Function | None:
    """Return the function that `node` calls, or None if it calls none that is known."""
    return FUNCTIONS.get(node.op_type) if node is not None and node.domain == DOMAIN else None


def quantises(node: ir.Node) -> bool:
    """Whether `node` calls a function that rounds what it is given to int8 as the model runs, all rows together."""
    function = called(node)
    return function is not None and bool(function.quantises)


def register(model: ir.Model) -> None:
    """Give `model` the bodies of the functions that its graph calls, and take from it those that it does not.

    Bodies of functions that nobody declared here stay as the model brought them.
    """
    names = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    for key in [key for key in model.functions if key[0] == DOMAIN and (key[1] not in names or key[1] in FUNCTIONS)]:
        del model.functions[key]
    for name in sorted(names & FUNCTIONS.keys()):
        carry(model, FUNCTIONS[name])
    if names:
        model.opset_imports[DOMAIN] = _VERSION
    else:
        model.opset_imports.pop(DOMAIN, None)


def carry(model: ir.Model, function: Function) -> None:
    """Give `model` the body of a function that a node of it will call, unless it has one."""
    if (DOMAIN, function.name, "") not in model.functions:
        body = function.in_model()
        body.opset_imports[""] = max(OPSET, model.opset_imports.get("", OPSET))  # runtimes ask for one opset
        model.functions[body.identifier()] = body
    model.opset_imports[DOMAIN] = _VERSION
