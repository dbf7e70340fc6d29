"""The building blocks of an encoder as data: attention, feed-forward, norms, embeddings and head, with their roles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ffc.graph.edit import constant

__all__ = ["ROLES", "Attention", "Blocks", "Embedding", "FeedForward", "Layer", "NormBlock", "Product", "Unmatched"]

ROLES = ("q", "k", "v", "attn_out", "ffn_in", "ffn_out", "head", "other")
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
        out: The value after the bias (and, in a fused call, after the activation).
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

    def playing(self, role: str, columns: tuple[int, ...] | None = None) -> Product:
        """Return this product in a role."""
        return replace(self, role=role, columns=columns)


@dataclass(frozen=True, eq=False)
class Attention:
    """Multi-head self-attention.

    Attributes:
        q: Product of the queries, [W, heads * head_size].
        k: Product of the keys, alike.
        v: Product of the values, [W, heads * value_size].
        attn_out: The output projection.
        heads: Number of heads.
        scale: Factor on the scores.
        masks: What is added to the scores (float) or selects them (bool), in order.
        core: The Softmax, the ``Attention`` node or the call.
        context: What `attn_out` reads, [B, S, heads * value_size].
        guarded: Whether probabilities that are not numbers are replaced by 0, which a mask of minus infinity needs.
    """

    q: Product
    k: Product
    v: Product
    attn_out: Product
    heads: int
    scale: float
    masks: tuple[ir.Value, ...]
    core: ir.Node
    context: ir.Value
    guarded: bool = False


@dataclass(frozen=True, eq=False)
class FeedForward:
    """The feed-forward network of a layer.

    Attributes:
        ffn_in: The product that widens, [W, units].
        ffn_out: The product that narrows, [units, W].
        activation: The operators between them, such as ``Gelu``, joined by spaces; empty for none.
    """

    ffn_in: Product
    ffn_out: Product
    activation: str

    @property
    def units(self) -> int:
        """Number of units between the two products."""
        return self.ffn_in.sizes[1]


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
    """One encoder layer; either part may be missing."""

    index: int
    attention: Attention | None
    ffn: FeedForward | None

    def products(self) -> Iterator[Product]:
        """Yield its products by role: q, k, v, attn_out, ffn_in, ffn_out."""
        if self.attention is not None:
            yield from (self.attention.q, self.attention.k, self.attention.v, self.attention.attn_out)
        if self.ffn is not None:
            yield from (self.ffn.ffn_in, self.ffn.ffn_out)


@dataclass(frozen=True)
class Unmatched:
    """A place that looked like a block and is none.

    Attributes:
        where: The node.
        why: The condition that failed.
    """

    where: str
    why: str


@dataclass(frozen=True, eq=False)
class Blocks:
    """All blocks of a model.

    Attributes:
        layers: The encoder layers in order.
        norms: Every layer normalisation.
        embeddings: The embedding look-ups.
        head: Products that follow the last layer: pooler and classifier.
        products: Every product with a constant weight, each with its role; a fused one appears once, as `other`.
        unmatched: What looked like a block and is none.
    """

    layers: tuple[Layer, ...]
    norms: tuple[NormBlock, ...]
    embeddings: tuple[Embedding, ...]
    head: tuple[Product, ...]
    products: tuple[Product, ...]
    unmatched: tuple[Unmatched, ...]
