"""Measure what a compile costs, in seconds and memory: against onnxruntime's own tools, for large models, by layers."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from contestants import compiled, ort_optimized_int8_tensor
from process_cost import Cost, cost, median
from random_bert import export
from record import save
from rich.console import Console
from rich.table import Table

from ffc.runtime.machine import machine

BASE = (12, 768)
"""Layers and width of BERT-base."""

LARGE = (18, 1600)
"""An encoder of 2.4 GB, more than one protobuf file can hold."""

FFC, PEER = "ffc", "ort"
BUILDS = {FFC: compiled("fuse,int8"), PEER: ort_optimized_int8_tensor}


def build_cost(build: str, source: Path) -> Cost:
    """Run one build in a process of its own and measure it.

    Raises:
        SystemExit: If it fails.
    """
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        return cost([sys.executable, __file__, "--build", build, str(source), str(Path(folder) / "out.onnx")])


def compared(source: Path, rounds: int) -> dict[str, list[Cost]]:
    """Measure all builds on one model, interleaved round by round."""
    found: dict[str, list[Cost]] = {name: [] for name in BUILDS}
    for _ in range(rounds):
        for name, costs in found.items():
            costs.append(build_cost(name, source))
    return found


def made(folder: Path, layers: int, width: int, external: bool = False) -> Path:
    """Export a random encoder in a process of its own, whose memory is then gone; return its path."""
    path = folder / f"bert-{layers}x{width}" / "model.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=export, args=(path, layers, width), kwargs={"external": external})
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"exporting {layers} layers of width {width} failed")
    return path


def weight_megabytes(source: Path) -> float:
    """Return the size of a model with its external data, in 10^6 bytes."""
    return sum(file.stat().st_size for file in source.parent.iterdir() if file.is_file()) / 1e6


def against_peer(folder: Path, rounds: int, console: Console) -> dict[str, object]:
    """Compare with onnxruntime's tools on BERT-base."""
    found = compared(made(folder, *BASE), rounds)
    mine, theirs = median(found[FFC]), median(found[PEER])
    table = Table(title="BERT-base, fuse,int8, verification included", title_justify="left")
    for column in ("", "seconds", "processor seconds", "peak MB"):
        table.add_column(column, justify="right" if column else "left")
    for name, one in (("ffc", mine), ("optimize_model + quantize_dynamic", theirs)):
        table.add_row(name, f"{one.seconds:.1f}", f"{one.processor:.1f}", f"{one.megabytes:.0f}")
    ratios = {"time": theirs.seconds / mine.seconds, "memory": mine.megabytes / theirs.megabytes}
    table.add_row("ffc is", f"{ratios['time']:.2f} times as fast", "", f"{ratios['memory']:.2f} of the memory")
    console.print(table)
    return {"rounds": {name: [asdict(one) for one in costs] for name, costs in found.items()}, "ratios": ratios}


def large(folder: Path, console: Console) -> dict[str, object]:
    """Compile a model with external data that no single file can hold."""
    source = made(folder, *LARGE, external=True)
    one, size = build_cost(FFC, source), weight_megabytes(source)
    console.print(
        f"{size:.0f} MB with external data: {one.seconds:.0f} s, {one.megabytes:.0f} MB, "
        f"{one.megabytes / size:.2f} times its size"
    )
    return {"model_megabytes": size, "cost": asdict(one), "times_its_size": one.megabytes / size}


def by_layers(folder: Path, counts: Sequence[int], rounds: int, console: Console) -> dict[str, object]:
    """Compile encoders that differ in the number of layers alone, and fit a line through their seconds."""
    sources = {count: made(folder, count, BASE[1] // 2) for count in counts}
    found: dict[int, list[Cost]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count, source in sources.items():
            found[count].append(build_cost(FFC, source))
    seconds = {count: median(costs).seconds for count, costs in found.items()}
    slope, start = statistics.linear_regression(list(seconds), list(seconds.values()))
    off = max(abs(start + slope * count - taken) / taken for count, taken in seconds.items())
    table = Table(title=f"by layers, width {BASE[1] // 2}", title_justify="left")
    for column in ("layers", "seconds", "on the line"):
        table.add_column(column, justify="right")
    for count, taken in seconds.items():
        table.add_row(str(count), f"{taken:.2f}", f"{start + slope * count:.2f}")
    console.print(table)
    console.print(f"a line through them is off by {100 * off:.0f} % at most")
    return {"seconds": seconds, "seconds_a_layer": slope, "start": start, "largest_deviation": off}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build"), help="where models are exported to (build)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, interleaved; medians count (3)")
    parser.add_argument("--layers", default="6,12,24,48", help="layer counts (6,12,24,48)")
    parser.add_argument("--only", choices=("peer", "large", "layers"), help="one part alone")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--build", nargs=3, metavar=("NAME", "SOURCE", "OUT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure what was asked for, print it and write the JSON."""
    given = arguments()
    if given.build:
        name, source, out = given.build
        BUILDS[name](Path(source), Path(out))
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    console, where = Console(), machine()
    console.print(str(where))
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "peer": lambda: against_peer(given.folder, given.rounds, console),
        "large": lambda: large(given.folder, console),
        "layers": lambda: by_layers(given.folder, [int(n) for n in given.layers.split(",")], given.rounds, console),
    }
    found = {name: part() for name, part in parts.items() if given.only in (None, name)}
    if given.json:
        save(given.json, "ffc.examples.compile-cost/2", where, 0, **found)


if __name__ == "__main__":
    main()
