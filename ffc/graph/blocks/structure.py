"""The building blocks of an encoder as data: attention, feed-forward, norms, embeddings and head, with their roles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect.edit import constant

__all__ = ["ROLES", "Attention", "Blocks", "Embedding", "FeedForward", "Layer", "Mask", "NormBlock", "Operand"]
__all__ += ["Product", "Unmatched"]

ROLES = ("q", "k", "v", "attn_out", "ffn_in", "gate", "ffn_out", "head", "other")
"""What a product with a constant weight can be for."""


@dataclass(frozen=True, eq=False)
class Product:
    """A product with a constant weight, its bias included.

    It is a ``MatMul`` (and ``Add``), a ``Gemm``, or a call of an ``ffc`` linear function.

    Attributes:
        node: The node that holds the product.
        weight: The constant [I, O], or [O, I] where `transposed`.
        transposed: Whether the weight is stored [O, I] (``Gemm`` with ``transB``).
        bias: The constant added, [O], or None.
        out: The value after the bias (and, in a fused call, after the activation); of a part of a feed-forward network,
            the value that holds its columns alone.
        role: One of `ROLES`.
        columns: The output columns that play this role, in order, where one product feeds several; None for all of
            them.
    """

    node: ir.Node
    weight: ir.Value
    transposed: bool
    bias: ir.Value | None
    out: ir.Value
    role: str = "other"
    columns: tuple[int, ...] | None = None

    @property
    def x(self) -> ir.Value:
        """Its input [..., I], as the graph is now."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    def matrix(self) -> np.ndarray:
        """Return the weight as [I, O], of its own columns only."""
        array = constant(self.weight)
        assert array is not None
        array = array.T if self.transposed else array
        return array if self.columns is None else array[:, list(self.columns)]

    def vector(self) -> np.ndarray | None:
        """Return the bias as [O], of its own columns only, or None."""
        array = constant(self.bias)
        return array if array is None or self.columns is None else array[list(self.columns)]

    @property
    def sizes(self) -> tuple[int, int]:
        """Input and output width."""
        inner, outer = self.matrix().shape
        return inner, outer

    @property
    def name(self) -> str:
        """What reports and options call it: the name of its output."""
        return self.out.name or self.node.name or "unnamed"

    def playing(self, role: str) -> Product:
        """Return this product in a role."""
        return replace(self, role=role)


@dataclass(frozen=True, eq=False)
class Operand:
    """Queries, keys or values, where attention reads them.

    Attributes:
        value: [B, S, heads * size], or, where `axes` is given, its axes in another order, or four in any.
        heads: Number of heads; keys and values may have fewer than the queries, each then serving as many.
        axes: Which axes of `value` are batch, token, head and element, or batch, token and both of these in one; None
            where it is [B, S, heads * size].
        product: The constant product that computes `value`, its columns those of this operand, in order of heads; None
            where `value` is computed otherwise.
        apart: The same, cut out of a product that feeds others too, where the graph does so; else None.
    """

    value: ir.Value
    heads: int
    axes: tuple[int, ...] | None = None
    product: Product | None = None
    apart: Operand | None = None


@dataclass(frozen=True)
class Mask:
    """What hides tokens from attention.

    Attributes:
        value: A float that is added to the scores, or a bool that is true where tokens are seen.
        factor: What a float is multiplied by before that.
        inverted: Whether a bool is true where tokens are hidden instead.
        flat: Whether it is [B * heads, S, S], not broadcast to [B, heads, S, S].
        low: What the scores of tokens that a bool hides become.
        floor: What a float holds below this hides as minus infinity does.
    """

    value: ir.Value
    factor: float = 1.0
    inverted: bool = False
    flat: bool = False
    low: float = -math.inf
    floor: float = -math.inf


@dataclass(frozen=True, eq=False, kw_only=True)
class Attention:
    """Scaled dot-product attention over heads, from queries, keys and values up to the context, in whatever form.

    Attributes:
        node: The Softmax, the ``Attention`` node or the call.
        operands: Queries, keys and values.
        heads: Number of heads.
        scale: Factor on the scores.
        masks: What hides tokens, in order.
        context: The weighted values [B, S, heads * value_size], or [B, heads, S, value_size] where `merged` is false.
        merged: Whether the heads of `context` lie side by side in one axis.
        tokens_first: Whether `context` is [S, B, heads * value_size].
        guarded: Whether probabilities that are not numbers are replaced by 0, which a mask of minus infinity needs.
        roles: The products around it, by role, as far as they are known: q, k, v and attn_out.
        why: Why heads cannot be scored and cut. Empty where they can: then all four roles are known, in this order, and
            head by head the columns of q, k and v are what the attention reads, and the rows of attn_out what reads it.
        shared: Whether something else reads its scores too, so that a call would compute them once more.
    """

    node: ir.Node
    operands: tuple[Operand, Operand, Operand]
    heads: int
    scale: float
    masks: tuple[Mask, ...]
    context: ir.Value
    merged: bool = True
    tokens_first: bool = False
    guarded: bool = False
    roles: Mapping[str, Product]
    why: str = ""
    shared: bool = False


@dataclass(frozen=True, eq=False)
class FeedForward:
    """The feed-forward network of a layer.

    Attributes:
        ffn_in: The product that widens, [W, units].
        ffn_out: The product that narrows, [units, W].
        activation: The operators between them, such as ``Gelu``, joined by spaces; empty for none.
        gate: A second product that widens, with whose columns those of `ffn_in` are multiplied; None without one. Both
            may be parts of one product: their `columns` then tell them apart.
    """

    ffn_in: Product
    ffn_out: Product
    activation: str
    gate: Product | None = None

    @property
    def units(self) -> int:
        """Number of units between the two products."""
        return self.ffn_in.sizes[1]

    def products(self) -> Iterator[Product]:
        """Yield its products by role: ffn_in, gate, ffn_out."""
        yield from (product for product in (self.ffn_in, self.gate, self.ffn_out) if product is not None)


@dataclass(frozen=True, eq=False)
class NormBlock:
    """A layer normalisation: `gamma` and `beta` [W] on x [..., W]; `skip` is the residual added first, or None."""

    node: ir.Node
    x: ir.Value
    skip: ir.Value | None


@dataclass(frozen=True, eq=False)
class Embedding:
    """Look-ups in constant tables [rows, W] whose sum starts the encoder; `tables` and `ids` go together."""

    tables: tuple[ir.Value, ...]
    ids: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True, eq=False)
class Layer:
    """One encoder layer.

    Attributes:
        index: Its number, from 0.
        attention: Its attention; None where the model has feed-forward networks alone.
        ffn: Its feed-forward network, or None.
    """

    index: int
    attention: Attention | None
    ffn: FeedForward | None

    @property
    def cuttable(self) -> Attention | None:
        """Its attention where heads can be scored and cut, else None."""
        return None if self.attention is None or self.attention.why else self.attention

    def products(self) -> Iterator[Product]:
        """Yield its products by role, as far as they are known: q, k, v, attn_out, ffn_in, gate, ffn_out."""
        if self.attention is not None:
            yield from self.attention.roles.values()
        if self.ffn is not None:
            yield from self.ffn.products()


@dataclass(frozen=True)
class Unmatched:
    """A place that looked like a block and is none.

    Attributes:
        where: The node, as ``Softmax name``.
        why: The condition that failed, with the node that broke it.
        kind: What it looked like: ``attention`` or ``feed-forward``.
    """

    where: str
    why: str
    kind: str = "attention"


@dataclass(frozen=True, eq=False)
class Blocks:
    """All blocks of a model.

    Attributes:
        layers: The encoder layers in order.
        norms: Every layer normalisation.
        embeddings: The embedding look-ups.
        head: Products that follow the last layer, where it is known in whole: pooler and classifier.
        products: Every product with a constant weight, each with its role; a fused one appears once, as `other`.
        unmatched: What looked like a block and is none.
    """

    layers: tuple[Layer, ...]
    norms: tuple[NormBlock, ...]
    embeddings: tuple[Embedding, ...]
    head: tuple[Product, ...]
    products: tuple[Product, ...]
    unmatched: tuple[Unmatched, ...]
