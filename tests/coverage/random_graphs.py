"""Compiles random graphs by the thousand, of an encoder's ingredients and with inputs of every kind, and tells how they end.

    python -m tests.coverage.random_graphs --count 1000 --record tests/coverage/results/random_graphs.json

Each is valid by onnx's checker and run by onnxruntime; what is compiled must give the same on feeds that were drawn apart,
under full, right-padded, left-padded and holed masks, or be refused with an error of ffc. Every second one is compiled with
`fuse`, the others with `fuse,int8`. A graph is told by its number: `--only N` compiles one again, `--keep` its file.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from tests.coverage.apart import EndedError, apart
from tests.coverage.outcomes import SECONDS, Case, Feed, Outcome, all_nodes, apart_by, judged, runs, tally
from tests.coverage.sketch import MASKS, WIDTHS, WORDS, Sketch, Value, feed
from tests.coverage.sketch_steps import STEPS

SIZES = (
    {"batch": 2, "seq": 5, "past": 3, "pixels": 4},
    {"batch": 1, "seq": 7, "past": 1, "pixels": 9},
    {"batch": 3, "seq": 4, "past": 2, "pixels": 1},
    {"batch": 2, "seq": 9, "past": 4, "pixels": 6},
)
_TRIES = 50
_NUDGE, _MOVED = 1e-7, 2e-5


def passes_of(number: int) -> str:
    """Return the pipeline of a graph."""
    return ("fuse", "fuse,int8")[number % 2]


def case(number: int, rows: bool = False) -> Case:
    """Return the graph of this number and its feeds, one of them as rows if asked for.

    Raises:
        RuntimeError: None of many that were drawn is valid and gives finite numbers.
    """
    for attempt in range(_TRIES):
        sketch = Sketch(number * _TRIES + attempt)
        model = _grown(sketch)
        fresh = [feed(sketch.inputs, sizes, mask, seed) for seed, (sizes, mask) in enumerate(zip(SIZES, MASKS, strict=True))]
        if model is not None and sound(model, fresh):
            proof = [feed(sketch.inputs, SIZES[0], "right", 100)] if rows else []
            return Case(f"{number:05}", model, proof, fresh)
    raise RuntimeError(f"graph {number}: none of {_TRIES} is valid")


def _grown(g: Sketch) -> onnx.ModelProto | None:
    _inputs(g)
    steps = [step for _, step in STEPS]
    for _ in range(g.dice.randint(3, 12)):
        (step,) = g.dice.choices(steps, [often for often, _ in STEPS])
        made = step(g)
        if made is not None:
            g.values.append(made)
    outputs = [each for each in g.values if each.name not in {value.name for value in g.inputs}]
    outputs = list(dict.fromkeys([*outputs[-1:], *g.dice.sample(outputs, min(len(outputs), g.dice.randrange(3)))]))
    if not outputs:
        return None
    if g.dice.random() < 0.05:
        outputs.append(g.dice.choice(g.inputs))
    if g.dice.random() < 0.05 and g.weights:
        name = g.dice.choice(list(g.weights))
        outputs.append(Value(name, str(g.weights[name].dtype), g.weights[name].shape))
    _leave_out_unused(g, outputs)
    listed = [name for name in g.weights if name not in {each.name for each in outputs}] if g.dice.random() < 0.1 else []
    return g.model(outputs, listed) if g.inputs else None


def _inputs(g: Sketch) -> None:
    """Draw inputs of several kinds; those that hold vectors of tokens become values to grow from."""
    dice = g.dice
    width = dice.choice(WIDTHS)
    if dice.random() < 0.5:
        ids = g.input("input_ids", dice.choice(("int64", "int32")), ("batch", "seq"), "ids")
        g.values.append(g.op("Gather", g.weight(WORDS, width), ids, shape=("batch", "seq", width)))
    else:
        g.values.append(g.input("x", "float32", ("batch", "seq", width)))
    if dice.random() < 0.6:
        name = dice.choice(("attention_mask", "keep", "m"))
        g.input(name, dice.choice(("int64", "int32", "bool", "float32")), ("batch", "seq"), "mask")
    if dice.random() < 0.2:
        g.input("lengths", dice.choice(("int64", "int32")), ("batch",), "lengths")
    for index in range(dice.choice((0, 0, 1, 2))):
        g.input(f"s{index}", dice.choice(("float32", "float64", "float16", "int64", "int32", "uint8", "bool")), (), "scalar")
    if dice.random() < 0.2:
        g.values.append(g.input("table", "float32", (dice.choice(WIDTHS), width)))
    if dice.random() < 0.15:
        past = g.input("past", "float32", ("batch", "past", width))
        total = g.op("Concat", past, g.values[0], shape=("batch", "past + seq", width), axis=1)
        whole = g.input("whole_mask", "int64", ("batch", "past + seq"), "mask")
        kept = g.op("Cast", whole, shape=whole.shape, dtype="float32", to=onnx.TensorProto.FLOAT)
        across = g.op("Unsqueeze", kept, g.constant([2]), shape=(*whole.shape, 1))
        g.values.append(g.op("Mul", total, across, shape=total.shape))
    if dice.random() < 0.15:
        g.values.append(g.input("other", "float32", ("batch", dice.choice(("pixels", 6)), width)))
    dice.shuffle(g.inputs)


def _leave_out_unused(g: Sketch, outputs: Sequence[Value]) -> None:
    """Take away inputs that nothing reads, most of the time."""
    read = {name for node in all_nodes(g.nodes) for name in node.input} | {each.name for each in outputs}
    unused = [each for each in g.inputs if each.name not in read]
    if unused and g.dice.random() < 0.1:
        unused = unused[1:]
    g.inputs[:] = [each for each in g.inputs if each not in unused]


def sound(model: onnx.ModelProto, feeds: Sequence[Feed]) -> bool:
    """Whether a model is valid and gives finite numbers that are more than rounding."""
    try:
        onnx.checker.check_model(model, full_check=True)
        found = runs(model, feeds)
    except Exception:  # onnx and onnxruntime raise what they like; another graph is drawn
        return False
    arrays = [array for outputs in found for array in outputs.values()]
    return all(np.isfinite(array).all() and array.size for array in arrays if array.dtype.kind == "f") and not any(
        apart_by(one, two, _MOVED) for one, two in zip(found, runs(model, [_nudged(each) for each in feeds]), strict=True)
    )


def _nudged(feed: Feed) -> Feed:
    """Return inputs that differ by a rounding: what is far off then, such as the norm of equal numbers, proves nothing."""
    dice = np.random.default_rng(0)

    def nudged(array: np.ndarray) -> np.ndarray:
        return np.asarray(array * (1 + _NUDGE * dice.standard_normal(array.shape)), np.float32)

    return {name: nudged(array) if array.dtype == np.float32 else array for name, array in feed.items()}


def compiled(number: int, rows: bool, keep: Path | None = None) -> Outcome:
    """Return how the compile of one graph ended, in a process of its own; keep its file if it is not right."""
    work = functools.partial(_compiled, number, rows, keep)
    try:
        return apart(work, SECONDS)
    except EndedError as error:
        return Outcome(f"{number:05}", "ended", message=str(error))


def _compiled(number: int, rows: bool, keep: Path | None) -> Outcome:
    drawn = case(number, rows)
    found = judged(drawn, passes_of(number))
    if keep is not None and found.ending != "right":
        keep.mkdir(parents=True, exist_ok=True)
        onnx.save(drawn.model, keep / f"{number:05}.onnx")
    return found


def main() -> int:
    """Compile the graphs asked for; say and write what became of them."""
    arguments = _arguments()
    from tests.safety import warm

    assert warm.LIBRARY
    numbers = arguments.only or range(arguments.start, arguments.start + arguments.count)
    started = time.monotonic()
    found = tally(lambda number: compiled(number, arguments.rows, arguments.keep), numbers, arguments.jobs)
    seconds = time.monotonic() - started
    if arguments.only:
        for each in found.outcomes:
            print(each)
    print(f"{len(numbers)} in {seconds:.0f} s: {found.counts}; refused, by what is named: {found.reasons}")
    if arguments.record:
        settings = {"start": arguments.start, "rows": arguments.rows, "passes": [passes_of(0), passes_of(1)]}
        found.save(arguments.record, "ffc.random-graphs/1", seconds, **settings)
    return 1 if found.faults else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="number of graphs")
    parser.add_argument("--start", type=int, default=0, help="number of the first")
    parser.add_argument("--rows", action="store_true", help="give each a feed as rows to prove on")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="graphs at a time")
    parser.add_argument("--only", type=int, nargs="+", help="graphs by number, and what they said")
    parser.add_argument("--keep", type=Path, help="folder for the files of those that are not right")
    parser.add_argument("--record", type=Path, help="JSON file to write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
