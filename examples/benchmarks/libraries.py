"""Hold what ffc writes itself against libraries that do the like: symbolic shapes, reading and writing model files."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import sympy
from record import save
from rich.console import Console
from rich.table import Table

import ffc
from ffc.compiler.library import Library
from ffc.graph.shapes.dim import maximum, symbol, symbols
from ffc.graph.shapes.inference import infer
from ffc.graph.tidy import tidy
from ffc.runtime.machine import machine

SIZES = {"batch", "length"}
"""The names that the exports give to what they leave open."""

WEIGHTS, WEIGHT_SHAPE = 12, (4096, 5120)
"""A file of 1 GB, half of what one protobuf file can hold."""


def by_ffc(path: Path) -> dict[str, bool]:
    """Infer with ffc; return for each computed value whether all its dimensions are told by the inputs' sizes."""
    model = ffc.load(path)
    shapes = infer(model)
    found = {}
    for node in model.graph:
        for value in node.outputs:
            shape = shapes.of(value)
            told = shape is not None and all(isinstance(dim, int) or symbols(dim) <= SIZES for dim in shape)
            found[value.name or ""] = told
    return found


def by_onnx(path: Path) -> dict[str, bool]:
    """Infer with onnx, small integer contents followed too."""
    return _told(onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True))


def by_onnxruntime(path: Path) -> dict[str, bool]:
    """Infer with onnxruntime's symbolic shape inference, loaded by its file: its package would import torch."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None and spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / "tools" / "symbolic_shape_infer.py"
    module_spec = importlib.util.spec_from_file_location("symbolic_shape_infer", file)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return _told(module.SymbolicShapeInference.infer_shapes(onnx.load(path), auto_merge=True))


def _told(model: onnx.ModelProto) -> dict[str, bool]:
    known = {value.name: value.type.tensor_type for value in (*model.graph.value_info, *model.graph.output)}
    return {name: name in known and _is_told(known[name]) for node in model.graph.node for name in node.output if name}


def _is_told(tensor: onnx.TypeProto.Tensor) -> bool:
    if not tensor.HasField("shape"):
        return False
    open_dims = [dim.dim_param for dim in tensor.shape.dim if not dim.HasField("dim_value")]
    return all(name and {str(one) for one in sympy.sympify(name).free_symbols} <= SIZES for name in open_dims)


SHAPES: dict[str, Callable[[Path], dict[str, bool]]] = {
    "ffc": by_ffc,
    "onnx.shape_inference": by_onnx,
    "onnxruntime symbolic": by_onnxruntime,
}


def dimensions_by_ffc() -> list[str]:
    """Do what shape rules do with dimensions, with ffc's."""
    batch, length = symbol("batch", 1), symbol("length", 1)
    width = batch * length * 384 // 32
    return [str(width), str((384 * batch * length + 4 * length) // length), str(maximum(batch * length, length))]


def dimensions_by_sympy() -> list[str]:
    """Do the same with sympy."""
    batch, length = sympy.symbols("batch length", integer=True, positive=True)
    width = batch * length * 384 // 32
    quotient = sympy.simplify((384 * batch * length + 4 * length) // length)
    return [str(width), str(quotient), str(sympy.Max(batch * length, length))]


DIMENSIONS: dict[str, Callable[[], list[str]]] = {"ffc": dimensions_by_ffc, "sympy": dimensions_by_sympy}


def through_ffc(source: Path, out: Path) -> None:
    """Read a model and write it again with ffc."""
    ffc.save(ffc.load(source), out)


def through_onnx(source: Path, out: Path) -> None:
    """Read a model and write it again with onnx."""
    onnx.save(onnx.load(source), out)


def through_onnx_ir(source: Path, out: Path) -> None:
    """Read a model and write it again with onnx_ir, on which ffc's own reading and writing stands."""
    ir.save(ir.load(source), out)


FILES: dict[str, Callable[[Path, Path], None]] = {
    "ffc": through_ffc,
    "onnx": through_onnx,
    "onnx_ir": through_onnx_ir,
}


def bare(source: Path, out: Path) -> Path:
    """Write a model without the shapes that were noted on computed values, for each tool to find them itself."""
    model = onnx.load(source)
    del model.graph.value_info[:]
    onnx.save(model, out)
    return out


def fused(source: Path, out: Path) -> Path:
    """Write a model as `fuse` leaves it, in calls of model-local functions, without noted shapes."""
    library, model = Library.default(), ffc.load(source)
    for name in ("opset", "clean", "fuse"):
        library[name]().run(model, ffc.Log())
    ffc.save(tidy(model), out)
    return bare(out, out)


def compare_shapes(paths: Iterable[Path], rounds: int, console: Console) -> dict[str, object]:
    """Count the values whose shapes each tool tells, and time it."""
    record: dict[str, object] = {}
    for path in paths:
        seconds: dict[str, list[float]] = {name: [] for name in SHAPES}
        told: dict[str, dict[str, bool]] = {}
        failed: dict[str, str] = {}
        for _ in range(rounds):
            for name, tool in SHAPES.items():
                started = time.perf_counter()
                try:
                    told[name] = tool(path)
                except Exception as error:  # each tool raises its own kinds; that it fails is a result
                    failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
                seconds[name].append(time.perf_counter() - started)
        table = Table(title=f"shapes of {path.stem}, {len(told['ffc'])} computed values", title_justify="left")
        for column in ("", "told", "seconds, reading included"):
            table.add_column(column, justify="right" if column else "left")
        rows = {}
        for name in SHAPES:
            count = None if name in failed else sum(told[name].get(value, False) for value in told["ffc"])
            rows[name] = {"told": count, "seconds": statistics.median(seconds[name]), "failed": failed.get(name)}
            table.add_row(name, failed.get(name, str(count)), f"{statistics.median(seconds[name]):.2f}")
        console.print(table)
        record[path.stem] = {"values": len(told["ffc"]), "tools": rows}
    return record


def compare_dimensions(rounds: int, console: Console) -> dict[str, object]:
    """Time arithmetic on dimensions, a hundred times a round."""
    seconds: dict[str, list[float]] = {name: [] for name in DIMENSIONS}
    for _ in range(rounds):
        for name, compute in DIMENSIONS.items():
            started = time.perf_counter()
            for _ in range(100):
                compute()
            seconds[name].append((time.perf_counter() - started) / 100)
    found = {
        name: {"seconds": statistics.median(taken), "gives": DIMENSIONS[name]()} for name, taken in seconds.items()
    }
    table = Table(title="dimensions: a product, a quotient and a maximum", title_justify="left")
    for column in ("", "milliseconds", "gives"):
        table.add_column(column)
    for name, compute in DIMENSIONS.items():
        table.add_row(name, f"{1e3 * statistics.median(seconds[name]):.2f}", ", ".join(compute()))
    console.print(table)
    return dict(found)


def compare_files(folder: Path, rounds: int, console: Console) -> dict[str, object]:
    """Send a model of 1 GB through each library, in a process of its own each time."""
    source = folder / "large.onnx"
    # In a process of its own: the memory that this one has had would count for those that it starts.
    maker = multiprocessing.get_context("spawn").Process(target=save_large_model, args=(source,))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit(f"{source} cannot be written")
    size = source.stat().st_size / 1e6
    found: dict[str, list[dict[str, float]]] = {name: [] for name in FILES}
    for _ in range(rounds):
        for name, runs in found.items():
            out = folder / "again.onnx"
            command = [sys.executable, __file__, "--through", name, str(source), str(out)]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            out.unlink()
    table = Table(title=f"a model of {size:.0f} MB, read and written", title_justify="left")
    for column in ("", "seconds", "peak MB", "times its size"):
        table.add_column(column, justify="right" if column else "left")
    rows = {}
    for name, runs in found.items():
        row = {key: statistics.median(run[key] for run in runs) for key in ("seconds", "megabytes")}
        row["times_its_size"] = row["megabytes"] / size
        table.add_row(name, f"{row['seconds']:.2f}", f"{row['megabytes']:.0f}", f"{row['times_its_size']:.2f}")
        rows[name] = row
    console.print(table)
    return {"model_megabytes": size, "libraries": rows}


def save_large_model(path: Path) -> None:
    """Write a chain of products whose weights make 1 GB."""
    random = np.random.default_rng(0)
    inputs = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", WEIGHT_SHAPE[0]]))
    x, initializers, nodes = inputs, [], []
    for index in range(WEIGHTS):
        array = random.standard_normal(WEIGHT_SHAPE[:: 1 if index % 2 == 0 else -1], np.float32)
        weight = ir.Value(name=f"w{index}", const_value=ir.Tensor(array, name=f"w{index}"))
        initializers.append(weight)
        nodes.append(ir.node("MatMul", [x, weight]))
        x = nodes[-1].outputs[0]
        x.name = f"y{index}"
    x.type, x.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", WEIGHT_SHAPE[0]])
    graph = ir.Graph([inputs], [x], nodes=nodes, initializers=initializers, opset_imports={"": 23}, name="chain")
    ir.save(ir.Model(graph, ir_version=11), path)


def measured(name: str, source: Path, out: Path) -> None:
    """Send a model through one library and print what that took, imports left out of the seconds."""
    started = time.perf_counter()
    FILES[name](source, out)
    seconds = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    print(json.dumps({"seconds": seconds, "megabytes": peak}))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, help="exports whose sizes are called batch and length")
    parser.add_argument("--folder", type=Path, default=Path("build"), help="where a model of 1 GB is written (build)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, interleaved; medians count (3)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--through", nargs=3, metavar=("NAME", "SOURCE", "OUT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write the JSON."""
    given = arguments()
    if given.through:
        name, source, out = given.through
        measured(name, Path(source), Path(out))
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    console, where = Console(), machine()
    console.print(str(where))
    given.folder.mkdir(parents=True, exist_ok=True)
    forms = ((bare, "bare"), (fused, "fused"))
    paths = [form(path, given.folder / f"{path.stem}-{name}.onnx") for path in given.models for form, name in forms]
    found = {
        "shapes": compare_shapes(paths, given.rounds, console),
        "dimensions": compare_dimensions(given.rounds, console),
        "files": compare_files(given.folder, given.rounds, console),
    }
    if given.json:
        versions = {name: importlib.metadata.version(name) for name in ("onnx", "onnx-ir", "onnxruntime", "sympy")}
        save(given.json, "ffc.examples.libraries/1", where, 0, versions=versions, **found)


if __name__ == "__main__":
    main()
