"""Hand-made graphs for tests: drafts of any kind, and a small encoder in the style of today's default exporter.

Unlike an export these need no torch and never change, so golden texts are made of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes.common import NameFixPass

from ffc.compiler.library import Library
from ffc.compiler.log import Log
from ffc.compiler.passes import Pass
from ffc.compiler.syntax import parse
from ffc.graph.dialect.function import register
from ffc.graph.dialect.trace import OPSET, Op, Program, insert, trace
from ffc.graph.tidy import tidy

WIDTH, HEADS, UNITS, VOCABULARY, POSITIONS = 12, 3, 20, 30, 24
LOWEST = float(np.finfo(np.float32).min)
LIBRARY = Library.default()

Feeds = dict[str, np.ndarray]


class Draft:
    """A graph under construction: `op` records nodes, weights come from one seeded generator."""

    def __init__(self, seed: int = 0) -> None:
        self.op: Any = Op()
        self.random = np.random.default_rng(seed)
        self.inputs: list[ir.Value] = []
        self.weights: list[ir.Value] = []

    def input(self, name: str, *shape: int | str, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        """Add a graph input."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def weight(self, name: str, array: np.ndarray) -> ir.Value:
        """Add an initializer."""
        tensor = ir.Tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self.weights.append(value)
        return value

    def normal(self, name: str, *shape: int, mean: float = 0.0) -> ir.Value:
        """Add a float32 initializer of random numbers."""
        return self.weight(name, (mean + 0.4 * self.random.standard_normal(shape)).astype(np.float32))

    def linear(self, name: str, x: ir.Value, inner: int, outer: int) -> Any:
        """Add a product with a bias."""
        product = self.op.MatMul(x, self.normal(f"{name}.weight", inner, outer))
        return self.op.Add(product, self.normal(f"{name}.bias", outer))

    def norm(self, name: str, x: ir.Value, width: int = WIDTH) -> Any:
        """Add a layer normalisation."""
        gamma, beta = self.normal(f"{name}.weight", width, mean=1.0), self.normal(f"{name}.bias", width)
        return self.op.LayerNormalization(x, gamma, beta, axis=-1, epsilon=1e-12)

    def model(
        self, outputs: Mapping[str, tuple[ir.Value, Sequence[int | str]]], *, opset: int = OPSET, dtype: ir.DataType = ir.DataType.FLOAT
    ) -> ir.Model:
        """Close the graph.

        Args:
            outputs: A value and its shape for each name.
            opset: The opset of the default domain.
            dtype: Type of the outputs.
        """
        for name, (value, shape) in outputs.items():
            value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(dtype)
        graph = ir.Graph(
            self.inputs,
            [value for value, _ in outputs.values()],
            nodes=self.op.nodes,
            initializers=self.weights,
            opset_imports={"": opset},
            name="draft",
        )
        model = ir.Model(graph, ir_version=10)
        NameFixPass()(model)
        register(model)
        return model


def of_program(
    program: Program, inputs: Mapping[str, np.ndarray], constants: Mapping[str, np.ndarray], attributes: Mapping[str, Any],
    *, symbolic: bool = False,
) -> ir.Model:  # fmt: skip
    """Return a model whose graph is `program`, with output ``y``.

    Args:
        program: A program with one output.
        inputs: Samples of its tensors that are graph inputs.
        constants: Its tensors that are initializers.
        attributes: Its attributes.
        symbolic: Whether the dimensions of inputs are symbols, one for each size, or numbers.
    """
    draft = Draft()
    values: dict[str, ir.Value] = {}
    for name, array in inputs.items():
        shape = [f"d{size}" if symbolic else size for size in array.shape]
        values[name] = draft.input(name, *shape, dtype=ir.Tensor(array).dtype)
    values |= {name: draft.weight(name, np.asarray(array)) for name, array in constants.items()}
    attrs = {name: ir.convenience.convert_attribute(name, value) for name, value in attributes.items()}
    nodes, (result,) = insert(trace(program), values, attrs)
    draft.op.nodes.extend(nodes)
    result.name = "y"
    graph = ir.Graph(draft.inputs, [result], nodes=nodes, initializers=draft.weights, opset_imports={"": OPSET})
    model = ir.Model(graph, ir_version=10)
    if any(node.domain == "com.microsoft" for node in nodes):
        model.opset_imports["com.microsoft"] = 1
    NameFixPass()(model)
    register(model)
    return model


def encoder(*, layers: int = 1, pooler: bool = True, seed: int = 0, opset: int = 20, causal: bool = False) -> ir.Model:
    """Return a small BERT as ``torch.onnx.export`` writes it by default: computed shapes, scaled q and k, a guarded Softmax.

    Inputs are ``input_ids``, ``attention_mask`` and ``token_type_ids``, int64 [batch, seq]; outputs ``last_hidden_state``
    [batch, seq, 12] and, if asked for, ``pooler`` [batch, 12].

    Args:
        layers: Number of layers.
        pooler: Whether the head of dense and tanh on the first token is there.
        seed: Seed of the weights.
        opset: The opset it is declared for, from 20.
        causal: Whether tokens see only those before them, as in a decoder.
    """
    draft = Draft(seed)
    op = draft.op
    ids, mask, types = (
        draft.input(name, "batch", "seq", dtype=ir.DataType.INT64) for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    word, kind = draft.normal("word", VOCABULARY, WIDTH), draft.normal("type", 2, WIDTH)
    tokens = op.Shape(types, start=1, end=2)
    positions = op.Slice(np.arange(POSITIONS)[None], [0], tokens, [1], [1])
    x = op.Add(op.Gather(word, ids, axis=0), op.Gather(kind, types, axis=0))
    x = op.Add(x, op.Gather(draft.normal("position", POSITIONS, WIDTH), positions, axis=0))
    x = draft.norm("embeddings", x)
    batch = op.Shape(types, start=0, end=1)
    added = _exported_mask(op, mask, batch, tokens, causal)
    for layer in range(layers):
        x = _exported_layer(draft, f"layer{layer}", x, added, batch, tokens)
    outputs: dict[str, tuple[ir.Value, Sequence[int | str]]] = {"last_hidden_state": (x, ["batch", "seq", WIDTH])}
    if pooler:
        first = op.Gather(x, np.int64(0), axis=1)
        dense = op.Gemm(first, draft.normal("pooler.weight", WIDTH, WIDTH), draft.normal("pooler.bias", WIDTH), transB=1)
        outputs["pooler"] = (op.Tanh(dense), ["batch", WIDTH])
    return draft.model(outputs, opset=opset)


def _exported_mask(op: Any, mask: ir.Value, batch: Any, tokens: Any, causal: bool) -> Any:
    columns = op.Unsqueeze(op.Range(np.int64(0), op.Squeeze(tokens), np.int64(1)), [0, 1])
    keep = op.And(np.True_, op.GreaterOrEqual(op.Unsqueeze(columns, [3]), np.int64(0)))
    rows = op.Unsqueeze(op.Unsqueeze(op.Range(np.int64(0), op.Squeeze(batch), np.int64(1)), [1, 2]), [3])
    across = op.Unsqueeze(columns, [2])
    shape = op.Shape(op.Max(rows, across), start=0)
    places = [op.Unsqueeze(op.Expand(value, shape), [-1]) for value in (rows, across)]
    real = op.GatherND(op.Cast(mask, to=ir.DataType.BOOL.value), op.Concat(*places, axis=-1), batch_dims=0)
    keep = op.And(keep, real)
    if causal:
        keep = op.And(keep, op.LessOrEqual(across, op.Unsqueeze(columns, [3])))
    return op.Where(keep, np.float32(0), np.float32(LOWEST))


def _exported_layer(draft: Draft, name: str, x: Any, mask: Any, batch: Any, tokens: Any) -> Any:
    op, size = draft.op, WIDTH // HEADS
    split = op.Concat(batch, tokens, [-1], [size], axis=0)
    factor = np.float32(size**-0.25)
    q, k, v = (
        op.Transpose(op.Reshape(draft.linear(f"{name}.{role}", x, WIDTH, WIDTH), split, allowzero=1), perm=[0, 2, 1, 3])
        for role in ("q", "k", "v")
    )
    shape = op.Shape(k, start=0)
    last, last_but_one = op.Slice(shape, [-1], [2**63 - 1]), op.Slice(shape, [-2], [-1])
    flat = op.Transpose(op.Reshape(k, op.Concat([-1], last_but_one, last, axis=0)), perm=[0, 2, 1])
    keys = op.Reshape(flat, op.Concat(op.Slice(shape, [-(2**63)], [-2]), last, last_but_one, axis=0))
    scores = op.Add(op.MatMul(op.Mul(q, factor), op.Mul(keys, factor)), mask)
    probabilities = op.Softmax(scores, axis=-1)
    probabilities = op.Where(op.IsNaN(probabilities), np.float32(0), probabilities)
    context = op.Transpose(op.MatMul(probabilities, v), perm=[0, 2, 1, 3])
    merged = op.Reshape(context, op.Concat(batch, tokens, [-1], axis=0), allowzero=1)
    x = draft.norm(f"{name}.norm1", op.Add(draft.linear(f"{name}.out", merged, WIDTH, WIDTH), x))
    wide = op.Gelu(draft.linear(f"{name}.ffn_in", x, WIDTH, UNITS))
    return draft.norm(f"{name}.norm2", op.Add(draft.linear(f"{name}.ffn_out", wide, UNITS, WIDTH), x))


def run_passes(model: ir.Model, *texts: str) -> ir.Model:
    """Run passes one after another on a clone, each tidied as the run loop does, nothing inserted between them."""
    model = model.clone()
    for text in texts:
        (item,) = parse(text, LIBRARY)
        run_pass(item, model)
    return model


def run_pass(item: Pass, model: ir.Model) -> Log:
    """Run one pass in place and return its log."""
    log = Log()
    item.run(model, log)
    tidy(model)
    return log


def masks(batch: int, length: int) -> dict[str, np.ndarray]:
    """Return int64 masks [batch, length] by name: full, padded on either side by a number of tokens that varies, with holes."""
    full = np.ones((batch, length), np.int64)
    right, left, holed = full.copy(), full.copy(), full.copy()
    for row in range(batch):
        lost = (row + 1) % max(1, length // 2)
        right[row, length - lost :] = 0
        left[row, :lost] = 0
        holed[row, 1 + row % 2 : length : 3] = 0
    return {"full": full, "right": right, "left": left, "holed": holed}


def feeds(mask: np.ndarray, *, vocabulary: int = VOCABULARY, types: bool = True, seed: int = 0) -> Feeds:
    """Return random inputs of a BERT for `mask`, an int64 array [batch, length]."""
    random = np.random.default_rng(seed)
    found = {"input_ids": random.integers(5, vocabulary, mask.shape), "attention_mask": mask}
    return found | ({"token_type_ids": random.integers(0, 2, mask.shape)} if types else {})


class Stock:
    """A model in onnxruntime as a user has it, without any help of ffc."""

    def __init__(self, model: ir.Model | Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        given = ir.to_proto(model).SerializeToString() if isinstance(model, ir.Model) else str(model)
        self._session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))


def run_stock(model: ir.Model | Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model once in onnxruntime as a user would."""
    return Stock(model)(inputs)


def difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], mask: np.ndarray | None = None) -> float:
    """Return the largest difference of any output relative to its scale, at real tokens only where `mask` is given."""
    assert one.keys() == other.keys()
    worst = 0.0
    for name, array in one.items():
        assert array.shape == other[name].shape
        a, b = (x[mask > 0] if mask is not None and x.ndim == 3 else x for x in (array, other[name]))
        assert np.isfinite(b).all()
        worst = max(worst, float(np.abs(a - b).max() / np.abs(a).max()))
    return worst


def count(model: ir.Model, *op_types: str) -> int:
    """Return how many nodes of the main graph have one of these operators."""
    return sum(node.op_type in op_types for node in model.graph)
