"""What a shape rule sees of one node, and the table in which the rules are registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import onnx_ir as ir

from ffc.graph.shapes.dim import Dim, at_least, maximum

__all__ = ["MAX_INTS", "ODDITIES", "RULES", "Fact", "Out", "PartialShape", "Rule", "Shape", "Site", "UnknownError"]
__all__ += ["broadcast", "fits", "is_absurd", "normal_axis", "op", "same", "tensor_ints"]

Shape: TypeAlias = tuple[Dim, ...]
T = TypeVar("T")
# A rule may leave single dimensions open: the walk fills them from the annotation or with a fresh symbol.
PartialShape: TypeAlias = tuple[Dim | None, ...]

# Contents are followed for tensors of rank <= 1 and at most this many elements.
MAX_INTS = 64


class UnknownError(Exception):
    """A rule asked for something that is not known; its node's outputs stay unknown."""


# What a rule may run into on a graph that is not valid, such as an axis or an attribute that is not there.
ODDITIES = (ArithmeticError, AttributeError, LookupError, TypeError, UnknownError, ValueError)


@dataclass(frozen=True)
class Out:
    """What a rule concludes about one output: None stands for "unknown" throughout."""

    shape: PartialShape | None = None
    dtype: ir.DataType | None = None
    ints: tuple[Dim, ...] | None = None


@dataclass(frozen=True)
class Fact(Out):
    """What is known of a value, no dimension left open."""

    shape: Shape | None = None


@dataclass(frozen=True)
class Site:
    """One node at one place: its inputs' facts and its attributes, those of an enclosing call filled in.

    `root` is the node of the main graph under which this one is executed: itself, or the outermost call.
    """

    node: ir.Node
    inputs: tuple[Fact | None, ...]
    attributes: Mapping[str, ir.Attr]
    root: ir.Node

    def has(self, index: int) -> bool:
        """Return whether input `index` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def fact(self, index: int) -> Fact:
        """Return what is known of input `index`, which may be nothing."""
        return (self.inputs[index] if index < len(self.inputs) else None) or Fact()

    def shape(self, index: int) -> Shape:
        """Return the shape of input `index` or raise UnknownError."""
        return _known(self.fact(index).shape)

    def ints(self, index: int) -> tuple[Dim, ...]:
        """Return the contents of input `index` or raise UnknownError."""
        return _known(self.fact(index).ints)

    def constants(self, index: int) -> tuple[int, ...]:
        """Return the contents of input `index`, all plain integers, or raise UnknownError."""
        ints = self.ints(index)
        plain = tuple(value for value in ints if isinstance(value, int))
        if len(plain) != len(ints):
            raise UnknownError
        return plain

    def dtype(self, index: int = 0) -> ir.DataType | None:
        """Return the element type of input `index`, None if unknown."""
        return self.fact(index).dtype

    def attr(self, name: str, default: Any = None) -> Any:
        """Return the value of attribute `name`, or `default`."""
        attribute = self.attributes.get(name)
        value = None if attribute is None else attribute.value  # None too where it names one that no call gives
        return default if value is None else value

    def axis(self, default: int, rank: int) -> int:
        """Return the attribute ``axis`` as one from 0 to ``rank - 1``, or raise UnknownError."""
        return normal_axis(self.attr("axis", default), rank)

    def axes(self, index: int) -> tuple[int, ...] | None:
        """Return the axes given as attribute (older opsets) or as input `index`; None if they are not given."""
        listed = self.attr("axes")
        if listed is not None:
            return tuple(listed)
        return self.constants(index) if self.has(index) else None


Rule: TypeAlias = Callable[[Site], Out | Sequence[Out]]
R = TypeVar("R", bound=Rule)
RULES: dict[tuple[str, str], Rule] = {}


def op(*names: str, domain: str = "") -> Callable[[R], R]:
    """Register the decorated rule for the operators `names` of `domain`."""

    def register(rule: R) -> R:
        RULES.update({(domain, name): rule for name in names})
        return rule

    return register


def normal_axis(axis: int, rank: int) -> int:
    """Return `axis` counted from the front, or raise UnknownError if it is out of range."""
    if not -rank <= axis < rank:
        raise UnknownError
    return axis % rank


def same(a: Dim | None, b: Dim | None) -> Dim | None:
    """Return the more telling of two dimensions that a valid model guarantees to be equal."""
    if a is None or isinstance(b, int):
        return b
    return a


def _broadcast_dim(a: Dim | None, b: Dim | None) -> Dim | None:
    """Return the dimension that `a` and `b` broadcast to in a valid model; None if it cannot be told."""
    if a == b:
        return a
    for one, other in ((a, b), (b, a)):
        if one == 1:
            return other
        if isinstance(one, int) or (one is not None and at_least(one, 2)):
            return one
    # Of two different sizes the smaller can only be 1, so the larger wins, unless one might be 0.
    if a is not None and b is not None and at_least(a, 1) and at_least(b, 1):
        return maximum(a, b)
    return None


def broadcast(*shapes: PartialShape) -> PartialShape:
    """Return the numpy broadcast of `shapes`."""
    rank = max(map(len, shapes), default=0)
    result: PartialShape = (1,) * rank
    for shape in shapes:
        padded = (1,) * (rank - len(shape)) + shape
        result = tuple(_broadcast_dim(a, b) for a, b in zip(result, padded, strict=True))
    return result


def tensor_ints(tensor: ir.TensorProtocol) -> tuple[Dim, ...] | None:
    """Return the elements of a small integer or bool tensor of rank <= 1, None for any other."""
    if not (tensor.dtype.is_integer() or tensor.dtype == ir.DataType.BOOL):
        return None
    if len(tensor.shape) > 1 or tensor.size > MAX_INTS:
        return None
    return tuple(int(value) for value in tensor.numpy().reshape(-1).tolist())


def is_absurd(numbers: PartialShape) -> bool:
    """Return whether a number does not fit into 64 bits: a hostile graph can square a size at every node."""
    return any(isinstance(number, int) and not -(2**63) <= number < 2**63 for number in numbers)


def fits(shape: Shape, ints: tuple[Dim, ...] | None) -> bool:
    """Return whether `ints` can be the contents of a tensor of rank <= 1 of this shape."""
    if ints is None or len(shape) > 1 or len(ints) > MAX_INTS or is_absurd(ints):
        return False
    return len(ints) == 1 if not shape else shape[0] == len(ints)


def _known(value: T | None) -> T:
    if value is None:
        raise UnknownError
    return value
