"""Measure what `ffc diff` costs: seconds and memory at BERT-base, on a model of 2 GB, and by the number of nodes."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from process_cost import Cost, cost, median
from record import save
from rich.console import Console
from rich.table import Table

from ffc.ci.diff.compare import compare
from ffc.ci.matching.snapshot import of_model
from ffc.graph import files
from ffc.runtime.machine import machine

BASE = (12, 768)
"""Layers and width of BERT-base."""
LARGE = (18, 1600)
"""An encoder of 2.4 GB, more than one protobuf file can hold."""
LAYERS = (36, 72, 145, 345, 690)
"""Of towers of small layers, 29 nodes each: up to 20,000 nodes."""
WIDTH = 32
_SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def apart(path: Path, layers: int, width: int, *, external: bool = False) -> None:
    """Export a random BERT in a process of its own: the memory that this one holds would count for those it starts."""
    code = "import sys; from pathlib import Path; from random_bert import export; "
    code += f"export(Path(sys.argv[1]), {layers}, {width}, external={external})"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=Path(__file__).parent, **_SILENT)


def measured(before: Path, after: Path, rounds: int) -> Cost:
    """Return what ``ffc diff`` takes in a process of its own, the medians over some rounds."""
    command = [sys.executable, "-m", "ffc", "diff", str(before), str(after), "--json"]
    return median([cost(command, (0, 1)) for _ in range(rounds)])


class Tower:
    """An encoder of many small layers, made without torch."""

    def __init__(self, layers: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.weights: list[ir.Value] = []
        self.nodes: list[ir.Node] = []
        self.input = ir.Value(
            name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", "tokens", WIDTH])
        )
        h = self.input
        for _ in range(layers):
            h = self.feed_forward(self.attention(h))
        h.name, h.type, h.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", "tokens", WIDTH])
        graph = ir.Graph(
            [self.input], [h], nodes=self.nodes, initializers=self.weights, opset_imports={"": 20}, name="tower"
        )
        self.model = ir.Model(graph, ir_version=10)

    def constant(self, array: np.ndarray) -> ir.Value:
        """Add an initializer."""
        name = f"w{len(self.weights)}"
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        self.weights.append(value)
        return value

    def normal(self, *shape: int) -> ir.Value:
        """Add an initializer of random numbers."""
        return self.constant(self.random.standard_normal(shape).astype(np.float32))

    def op(self, kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Add a node."""
        node = ir.node(kind, list(inputs), attributes or None, name=f"n{len(self.nodes)}")
        node.outputs[0].name = f"v{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def linear(self, x: ir.Value, inner: int, outer: int) -> ir.Value:
        """Add a product with a bias."""
        return self.op("Add", self.op("MatMul", x, self.normal(inner, outer)), self.normal(outer))

    def normed(self, x: ir.Value, skip: ir.Value) -> ir.Value:
        """Add a residual sum and its norm."""
        return self.op("LayerNormalization", self.op("Add", x, skip), self.normal(WIDTH), self.normal(WIDTH))

    def attention(self, h: ir.Value) -> ir.Value:
        """Add attention of four heads, with its sum and norm."""
        shape = self.constant(np.array([0, 0, 4, WIDTH // 4]))
        orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        parts = [self.op("Reshape", self.linear(h, WIDTH, WIDTH), shape) for _ in orders]
        q, k, v = (self.op("Transpose", part, perm=order) for part, order in zip(parts, orders, strict=True))
        scores = self.op("Mul", self.op("MatMul", q, k), self.constant(np.array(0.35, np.float32)))
        context = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        merged = self.op(
            "Reshape", self.op("Transpose", context, perm=[0, 2, 1, 3]), self.constant(np.array([0, 0, WIDTH]))
        )
        return self.normed(h, self.linear(merged, WIDTH, WIDTH))

    def feed_forward(self, h: ir.Value) -> ir.Value:
        """Add a feed-forward network, with its sum and norm."""
        return self.normed(h, self.linear(self.op("Gelu", self.linear(h, WIDTH, 2 * WIDTH)), 2 * WIDTH, WIDTH))


def by_nodes(rounds: int, seed: int) -> list[dict[str, Any]]:
    """Time comparisons, without loading and hashing, of towers that differ in ten norms, and in all weights."""
    rows = []
    for layers in LAYERS:
        before, after = Tower(layers, seed).model, Tower(layers, seed).model
        norms = [node for node in after.graph if node.op_type == "LayerNormalization"]
        for node in norms[:: max(1, len(norms) // 10)][:10]:
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-6)
        sides = [of_model(model) for model in (before, after, Tower(layers, seed + 1).model)]
        row: dict[str, Any] = {"nodes": len(before.graph)}
        for name, other in (("ten edits", sides[1]), ("trained again", sides[2])):
            times = []
            for _ in range(rounds):
                started = time.perf_counter()
                _, changes = compare(sides[0], other)
                times.append(time.perf_counter() - started)
            row[name] = {"seconds": statistics.median(times), "changes": len(changes)}
        rows.append(row)
    return rows


def show(models: Sequence[tuple[str, Cost]], rows: Sequence[dict[str, Any]]) -> None:
    """Print the tables."""
    console = Console()
    table = Table("models", "seconds", "processor seconds", "MB at most")
    for name, found in models:
        table.add_row(name, f"{found.seconds:.2f}", f"{found.processor:.2f}", f"{found.megabytes:.0f}")
    console.print(table)
    growth = Table("nodes", "ten edits: s", "µs a node", "trained again: s", "µs a node")
    for row in rows:
        cells = []
        for name in ("ten edits", "trained again"):
            seconds = row[name]["seconds"]
            cells += [f"{seconds:.2f}", f"{1e6 * seconds / row['nodes']:.0f}"]
        growth.add_row(str(row["nodes"]), *cells)
    console.print(growth)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="Where to write the record.")
    parser.add_argument("--no-large", action="store_true", help="Leave out the model of 2 GB.")
    given = parser.parse_args()
    models: list[tuple[str, Cost]] = []
    with tempfile.TemporaryDirectory() as folder:
        base, compiled = Path(folder) / "base.onnx", Path(folder) / "base.ffc.onnx"
        apart(base, *BASE)
        subprocess.run([sys.executable, "-m", "ffc", "compile", str(base), "-o", str(compiled)], check=True, **_SILENT)
        models.append(("BERT-base, itself", measured(base, base, given.rounds)))
        models.append(("BERT-base, compiled", measured(base, compiled, given.rounds)))
        if not given.no_large:
            large = Path(folder) / "large.onnx"
            apart(large, *LARGE, external=True)
            name = f"{files.size(large) / 1e9:.1f} GB in external data, itself"
            models.append((name, measured(large, large, max(1, given.rounds // 2))))
    rows = by_nodes(given.rounds, given.seed)
    show(models, rows)
    if given.json:
        found = {name: asdict(each) for name, each in models}
        save(given.json, "ffc.diff-cost/1", machine(), given.seed, rounds=given.rounds, models=found, by_nodes=rows)


if __name__ == "__main__":
    main()
