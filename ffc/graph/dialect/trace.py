"""Small programs over tensors, written as Python functions and traced into ONNX nodes.

A *program* is a function ``def name(op, x, w, *, heads: int): ...``: `op` comes first, then the tensors it takes,
then, as keywords, its attributes. `op.MatMul(x, w)` adds a node; `op.ffc.Linear(...)` and
`op.ms.MultiHeadAttention(...)` reach the domains ``ffc`` and ``com.microsoft``. Numbers, lists and arrays stand for
constants. The bodies of the ``ffc`` functions, both sides of every rule and every lowering are such programs, so all
of them can be read, matched, inserted and run alike.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, cast, get_type_hints, overload

import numpy as np
import onnx_ir as ir

from ffc.errors import UsageError

__all__ = ["OPSET", "Fragment", "Op", "Operator", "Program", "Tensor", "as_tensor", "followed_by"]
__all__ += ["insert", "parameters", "trace", "with_signature"]

OPSET = 23
"""The default-domain opset of every model between load and save, and of every program."""

Tensor: TypeAlias = ir.Value | np.ndarray | np.generic | float | Sequence[Any] | None
"""What a program computes with: a value, a literal that stands for a constant, or None for an input left out."""

Program = Callable[..., Any]

_ATTRIBUTE_TYPES = {
    int: ir.AttributeType.INT,
    float: ir.AttributeType.FLOAT,
    str: ir.AttributeType.STRING,
    tuple[int, ...]: ir.AttributeType.INTS,
}


def as_tensor(literal: Any) -> ir.Tensor[Any]:
    """Return `literal` as a tensor: floats as float32, integers as int64, bools as bool, arrays as they are."""
    if isinstance(literal, np.ndarray | np.generic):
        return ir.Tensor(np.asarray(literal))
    kinds = {type(item) for item in (literal if isinstance(literal, list | tuple) else [literal])}
    dtype = np.bool_ if kinds == {bool} else np.float32 if float in kinds else np.int64
    return ir.Tensor(np.asarray(literal, dtype))


class Operator(Protocol):
    """What adds one node: `op.MatMul`, say."""

    @overload
    def __call__(self, *inputs: Tensor, outputs: Literal[1] = 1, **attributes: Any) -> ir.Value: ...
    @overload
    def __call__(self, *inputs: Tensor, outputs: int, **attributes: Any) -> tuple[ir.Value, ...]: ...


class Op:
    """Records the nodes that a program asks for."""

    def __init__(self, domain: str = "", nodes: list[ir.Node] | None = None) -> None:
        self._domain = domain
        self.nodes: list[ir.Node] = [] if nodes is None else nodes

    @property
    def ffc(self) -> Op:
        """The functions of the dialect."""
        return self._of("ffc")

    @property
    def ms(self) -> Op:
        """The kernels of onnxruntime."""
        return self._of("com.microsoft")

    def _of(self, domain: str) -> Op:
        return Op(domain, self.nodes)

    def __getattr__(self, name: str) -> Operator:
        if not name[:1].isupper():
            raise AttributeError(name)
        return cast(Operator, functools.partial(self.node, name))

    def node(self, op_type: str, /, *inputs: Tensor, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node and return its output, or a tuple of them where `outputs` is more than one.

        Args:
            op_type: The operator in this recorder's domain.
            *inputs: Values, literals, or None for an input left out.
            outputs: Number of outputs.
            **attributes: Attribute values; an `ir.RefAttr` refers to an attribute of the enclosing program.
        """
        values = [item if item is None or isinstance(item, ir.Value) else self._literal(item) for item in inputs]
        attrs = [_attribute(name, value) for name, value in sorted(attributes.items()) if value is not None]
        node = ir.Node(self._domain, op_type, values, attrs, num_outputs=outputs)
        self._record(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def _record(self, node: ir.Node) -> None:
        self.nodes.append(node)

    def _literal(self, literal: Tensor) -> ir.Value:
        tensor = as_tensor(literal)
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)])
        node.outputs[0].const_value = tensor
        self.nodes.append(node)
        return node.outputs[0]


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, ir.Attr):  # a reference to an attribute of the program, under its own name there
        return ir.RefAttr(name, value.ref_attr_name or value.name, value.type)
    if isinstance(value, np.ndarray):
        return ir.AttrTensor(name, ir.Tensor(value))
    return ir.convenience.convert_attribute(name, value)


@dataclass(frozen=True)
class Fragment:
    """A traced program.

    Attributes:
        inputs: Its tensors by parameter name, in order.
        attributes: Its attributes, with the type each has and the default, or None where it must be given.
        nodes: Its nodes in topological order; attributes of the program appear in them as references.
        outputs: Its results.
    """

    inputs: Mapping[str, ir.Value]
    attributes: Mapping[str, ir.Attr]
    nodes: Sequence[ir.Node]
    outputs: Sequence[ir.Value]


@functools.cache
def trace(program: Program) -> Fragment:
    """Run `program` once on placeholders and return what it recorded.

    Raises:
        UsageError: If an attribute of it is not annotated with one of the types that attributes have.
    """
    tensors, keywords = parameters(program)
    inputs = {name: ir.Value(name=name) for name in tensors}
    attributes: dict[str, ir.Attr] = {}
    for parameter in keywords.values():
        kind = _ATTRIBUTE_TYPES.get(_plain(parameter.annotation))
        if kind is None:
            known = ", ".join(each.__name__ for each in _ATTRIBUTE_TYPES if isinstance(each, type))
            what = f"attribute '{parameter.name}' of program '{getattr(program, '__qualname__', program)}'"
            raise UsageError(f"{what} has no type that attributes have; annotate it: {known}")
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        attributes[parameter.name] = ir.Attr(parameter.name, kind, default)
    op = Op()
    references = {name: ir.RefAttr(name, name, attr.type) for name, attr in attributes.items()}
    result = program(op, *inputs.values(), **references)
    outputs = result if isinstance(result, tuple) else (result,)
    return Fragment(inputs, attributes, tuple(op.nodes), outputs)


def with_signature(
    program: Program, tensors: Sequence[str], attributes: Mapping[str, inspect.Parameter], name: str, text: str
) -> Program:
    """Give a program that was put together the signature that `trace` reads, a name and a docstring.

    Args:
        program: It takes `op`, tensors by position and attributes by keyword.
        tensors: The names of its tensors.
        attributes: Its attributes, as `parameters` returns them.
        name: What it is called.
        text: Its docstring.
    """
    positional = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in ("op", *tensors)]
    program.__signature__ = inspect.Signature([*positional, *attributes.values()])  # type: ignore[attr-defined]
    program.__annotations__ = {each: parameter.annotation for each, parameter in attributes.items()}
    program.__name__ = program.__qualname__ = name
    program.__doc__ = text
    return program


def parameters(program: Program) -> tuple[tuple[str, ...], dict[str, inspect.Parameter]]:
    """Return the names of a program's tensors, and its attributes with their types."""
    hints = get_type_hints(program)
    tensors, attributes = [], {}
    for each in list(inspect.signature(program).parameters.values())[1:]:
        if each.kind is inspect.Parameter.KEYWORD_ONLY:
            attributes[each.name] = each.replace(annotation=hints.get(each.name))
        else:
            tensors.append(each.name)
    return tuple(tensors), attributes


def followed_by(program: Program, then: Program, name: str, text: str) -> Program:
    """Return the program `name`, documented by `text`, that applies `then`, of one tensor, to the result of another."""
    tensors, first = parameters(program)
    _, second = parameters(then)

    def whole(op: Op, *values: Tensor, **attributes: Any) -> Tensor:
        inner = program(op, *values, **{each: attributes[each] for each in first if each in attributes})
        return then(op, inner, **{each: attributes[each] for each in second if each in attributes})  # type: ignore[no-any-return]

    whole.__module__ = program.__module__
    return with_signature(whole, tensors, {**first, **second}, name, text)


def _plain(hint: Any) -> Any:
    """Return ``T`` for ``T | None``."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return hint


def insert(
    fragment: Fragment, inputs: Mapping[str, ir.Value | None], attributes: Mapping[str, ir.Attr]
) -> tuple[list[ir.Node], list[ir.Value]]:
    """Copy a fragment for use in a graph.

    Args:
        fragment: What to copy.
        inputs: A value for each input of the fragment.
        attributes: Attributes for it; the fragment's defaults stand in for those left out.

    Returns:
        The new nodes in order, not yet part of any graph, and the values that are its outputs.
    """
    values: dict[ir.Value, ir.Value | None] = {fragment.inputs[name]: inputs[name] for name in fragment.inputs}
    known = {name: attr for name, attr in fragment.attributes.items() if attr.value is not None} | dict(attributes)
    nodes = []
    for node in fragment.nodes:
        resolved = [_resolve(attr, known) for attr in node.attributes.values()]
        args = [None if value is None else values[value] for value in node.inputs]
        attrs = [attr for attr in resolved if attr is not None]
        copy = ir.Node(node.domain, node.op_type, args, attrs, num_outputs=len(node.outputs))
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.const_value = old.const_value
            values[old] = new
        nodes.append(copy)
    outputs = [values[value] for value in fragment.outputs]
    return nodes, [value for value in outputs if value is not None]


def _resolve(attr: ir.Attr, known: Mapping[str, ir.Attr]) -> ir.Attr | None:
    if attr.ref_attr_name is None:
        return attr
    value = known.get(attr.ref_attr_name)
    return None if value is None else ir.Attr(attr.name, attr.type, value.value)
