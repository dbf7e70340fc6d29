"""A grammar of feed-forward networks: products, activations, residual and norm in the forms that are met, and in wrong ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.graphs import Draft
from tests.properties.attention_forms import WIDTH
from tests.properties.product_forms import PRODUCTS, write_product

GELUS = (
    "Gelu", "Gelu tanh", "erf/ first", "erf/ last", "erf/ inside", "erf* first", "erf* last", "erf* inside",
    "pow first", "pow last", "cube first", "cube last",
)  # fmt: skip
OTHERS = (
    "Relu", "Tanh", "Sigmoid", "quick gelu", "wrong sqrt", "wrong half", "wrong one", "wrong cubic", "wrong power", "half of another",
    "erf of another", "none", "LeakyRelu", "squared", "per unit", "over units",
)  # fmt: skip
NORMS = ("operator", "operator axis 2", "pow", "square", "none")
FAULTS = (
    "hidden out", "hidden read twice", "linear out", "linear read twice", "sum out", "sum read twice", "bias over tokens", "bias of one",
    "gated", "residual of another", "residual of one token", "norm over tokens", "epsilon outside", "epsilon large", "gamma per token",
    "no residual", "variance of another", "mean of another", "gemm scaled", "bias twice",
)  # fmt: skip


@dataclass(frozen=True)
class FeedForwardForm:
    """How one feed-forward network is written.

    Attributes:
        units: Number of hidden units.
        first: How the product that widens is written.
        second: That which narrows.
        activation: What is between them.
        norm: How the norm at the end is written.
        epsilon: Its epsilon.
        swapped: Whether operands of commutative operators stand the other way round.
        fault: What is wrong with it.
    """

    units: int = 20
    first: str = "matmul+bias"
    second: str = "matmul+bias"
    activation: str = "Gelu"
    norm: str = "operator"
    epsilon: float = 1e-5
    swapped: bool = False
    fault: str = ""


def feed_forward_forms(*, faults: bool = True) -> st.SearchStrategy[FeedForwardForm]:
    """Return forms of feed-forward networks, some of them with a fault where `faults` are wanted."""
    product = st.sampled_from((*PRODUCTS[:3], *PRODUCTS))
    return st.builds(
        FeedForwardForm,
        units=st.sampled_from((5, 12, 20)),
        first=product,
        second=product,
        activation=st.sampled_from((*GELUS, *(OTHERS if faults else ("Relu", "Tanh")))),
        norm=st.sampled_from(NORMS),
        epsilon=st.sampled_from((1e-5, 1e-12)),
        swapped=st.booleans(),
        fault=st.one_of(st.just(""), st.sampled_from(FAULTS)) if faults else st.just(""),
    )


class FeedForwardWriter:
    """Writes feed-forward networks into one draft, which gets the inputs ``x`` and ``other`` [batch, seq, 12]."""

    def __init__(self, draft: Draft, batch: int | str, tokens: int | str, x: Any = None, other: Any = None) -> None:
        self.draft, self.op = draft, draft.op
        self.batch, self.tokens = batch, tokens
        self.x = draft.input("x", batch, tokens, WIDTH) if x is None else x
        self.other = draft.input("other", batch, tokens, WIDTH) if other is None else other
        self.outputs: dict[str, tuple[Any, list[int | str]]] = {}

    def write(self, name: str, form: FeedForwardForm, x: Any = None, keep_units: tuple[int, ...] | None = None) -> Any:
        """Add one network and return its result; what it shows of its inside goes to `outputs`.

        Args:
            name: Prefix of weights and outputs.
            form: How it is written.
            x: What it reads, [batch, seq, 12]; the input ``x`` by default.
            keep_units: The units that count; the others' rows of the second product are zero.
        """
        op, fault = self.op, form.fault
        x = self.x if x is None else x
        rows = None if keep_units is None else np.isin(np.arange(form.units), keep_units).astype(np.float32)
        wide = self._first(name, form, x)
        hidden = self._activated(form, wide)
        if fault == "gated":
            hidden = op.Mul(hidden, write_product(self.draft, f"{name}.gate", form.first, x, WIDTH, form.units))
        narrow = write_product(self.draft, f"{name}.ffn_out", form.second, hidden, form.units, WIDTH, rows)
        if fault == "bias twice":
            narrow = op.Add(narrow, self.draft.normal(f"{name}.more", WIDTH))
        total = self._summed(form, x, narrow)
        self._show(name, form, wide, hidden, total)
        return self._normed(name, form, total)

    def _first(self, name: str, form: FeedForwardForm, x: Any) -> Any:
        op, draft, fault = self.op, self.draft, form.fault
        if fault in ("bias over tokens", "bias of one"):
            product = op.MatMul(x, draft.normal(f"{name}.ffn_in.weight", WIDTH, form.units))
            bias = np.full(1, 0.3, np.float32) if fault == "bias of one" else op.ReduceMean(self.other, [-1])
            return op.Add(product, bias)
        if fault == "gemm scaled":
            weight, bias = draft.normal(f"{name}.ffn_in.weight", WIDTH, form.units), draft.normal(f"{name}.ffn_in.bias", form.units)
            product = op.Gemm(op.Reshape(x, [-1, WIDTH]), weight, bias, alpha=0.5, beta=2.0)
            return op.Reshape(product, op.Concat(op.Shape(x, end=2), [form.units], axis=0))
        return write_product(draft, f"{name}.ffn_in", form.first, x, WIDTH, form.units)

    def _show(self, name: str, form: FeedForwardForm, wide: Any, hidden: Any, total: Any) -> None:
        for what, value, width in (("linear", wide, form.units), ("hidden", hidden, form.units), ("sum", total, WIDTH)):
            shape = [self.batch, self.tokens, width]
            if form.fault == f"{what} out":
                self.outputs[f"{name}.{what}"] = (value, shape)
            elif form.fault == f"{what} read twice":
                self.outputs[f"{name}.{what}"] = (self.op.Neg(value), shape)

    def _both(self, form: FeedForwardForm, operator: str, one: Any, other: Any) -> Any:
        return getattr(self.op, operator)(*((other, one) if form.swapped else (one, other)))

    def _activated(self, form: FeedForwardForm, x: Any) -> Any:
        op, kind = self.op, form.activation
        if kind in ("Gelu", "Relu", "Tanh", "Sigmoid", "LeakyRelu"):
            return getattr(op, kind)(x)
        simple = {
            "none": lambda: op.Identity(x),
            "Gelu tanh": lambda: op.Gelu(x, approximate="tanh"),
            "quick gelu": lambda: op.Mul(x, op.Sigmoid(op.Mul(x, 1.702))),
            "squared": lambda: op.Mul(op.Relu(x), op.Relu(x)),
            "per unit": lambda: op.Relu(op.Mul(x, np.linspace(0.5, 1, form.units, dtype=np.float32))),
            "over units": lambda: op.Softmax(x, axis=-1),
        }
        if kind in simple:
            return simple[kind]()
        return self._gelu(form, x)

    def _gelu(self, form: FeedForwardForm, x: Any) -> Any:
        op, kind = self.op, form.activation
        half = {"wrong half": 0.51}.get(kind, 0.5)
        one = {"wrong one": 0.9}.get(kind, 1.0)
        inner = self._tanh(form, x) if kind.split()[0] in ("pow", "cube") or kind in ("wrong cubic", "wrong power") else self._erf(form, x)
        grown = self._both(form, "Add", inner, np.float32(one))
        first = op.Relu(x) if kind == "half of another" else x
        if kind.endswith("last"):
            return self._both(form, "Mul", self._both(form, "Mul", first, grown), np.float32(half))
        if kind.endswith("inside"):
            return self._both(form, "Mul", first, self._both(form, "Mul", grown, np.float32(half)))
        return self._both(form, "Mul", self._both(form, "Mul", first, np.float32(half)), grown)

    def _erf(self, form: FeedForwardForm, x: Any) -> Any:
        op, kind = self.op, form.activation
        if kind == "erf of another":
            x = op.Relu(x)
        root = np.float32({"wrong sqrt": 1.42}.get(kind, 2**0.5))
        return op.Erf(self._both(form, "Mul", x, np.float32(0.5**0.5)) if kind.startswith("erf*") else op.Div(x, root))

    def _tanh(self, form: FeedForwardForm, x: Any) -> Any:
        op, kind = self.op, form.activation
        power = 2.0 if kind == "wrong power" else 3.0
        cube = op.Mul(op.Mul(x, x), x) if kind.startswith("cube") else op.Pow(x, np.float32(power))
        factor = np.float32(0.0457 if kind == "wrong cubic" else 0.044715)
        total = self._both(form, "Add", x, self._both(form, "Mul", cube, factor))
        return op.Tanh(self._both(form, "Mul", total, np.float32((2 / np.pi) ** 0.5)))

    def _summed(self, form: FeedForwardForm, x: Any, narrow: Any) -> Any:
        op, fault = self.op, form.fault
        if fault == "no residual":
            return narrow
        if fault == "residual of another":
            x = self.other
        elif fault == "residual of one token":
            x = op.Slice(x, [0], [1], [1])
        return self._both(form, "Add", narrow, x)

    def _normed(self, name: str, form: FeedForwardForm, x: Any) -> Any:
        op, draft, fault = self.op, self.draft, form.fault
        if form.norm == "none":
            return op.Identity(x)
        gamma, beta = draft.normal(f"{name}.gamma", WIDTH, mean=1.0), draft.normal(f"{name}.beta", WIDTH)
        written = ("norm over tokens", "epsilon outside", "epsilon large", "gamma per token", "variance of another", "mean of another")
        if form.norm.startswith("operator") and fault not in written:
            axis = 2 if form.norm.endswith("2") else -1
            return op.LayerNormalization(x, gamma, beta, axis=axis, epsilon=form.epsilon)
        axes = [1] if fault == "norm over tokens" else [-1]
        centred = op.Sub(x, op.ReduceMean(self.other if fault == "mean of another" else x, axes))
        spread = op.Relu(centred) if fault == "variance of another" else centred
        square = op.Mul(spread, spread) if form.norm == "square" else op.Pow(spread, np.float32(2))
        variance = op.ReduceMean(square, axes)
        epsilon = np.float32(0.5 if fault == "epsilon large" else form.epsilon)
        if fault == "epsilon outside":
            deviation = op.Add(op.Sqrt(variance), np.float32(0.01))
        else:
            deviation = op.Sqrt(self._both(form, "Add", variance, epsilon))
        scaled: Any = gamma
        if fault == "gamma per token":
            scaled = op.ReduceMean(self.other, [-1])
        return self._both(form, "Add", self._both(form, "Mul", op.Div(centred, deviation), scaled), beta)
