"""Compile MiniLM as onnxruntime's tools quantise it, and hold the result against it: how fast, how far from float32.

Times are of the processor, on one thread: as much as the clock's on a machine that does nothing else, and less off on
one that does.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from contestants import Build, compiled, ort_int8
from latency import accepted, session
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from record import save
from rich.console import Console
from rich.table import Table

from ffc.runtime.machine import machine

sys.path.insert(0, str(Path(__file__).parents[1] / "minilm"))
import export

FLOAT32, FFC = "float32", "ffc fuse,int8"
PASSES = "dequantize,fuse,int8"

QUESTIONS = Path("superglue", "BoolQ")
MEASURED, CALIBRATED = "val.jsonl", "train.jsonl"

Feeds = dict[str, npt.NDArray[np.int64]]
Floats = npt.NDArray[np.float32]


def int8_tensor(source: Path, out: Path) -> None:
    """Quantise with one scale a weight: what hubs call ``model_quantized.onnx``."""
    quantize_dynamic(source, out, weight_type=QuantType.QInt8)


def uint8_tensor(source: Path, out: Path) -> None:
    """Quantise to uint8, with one scale and zero point a weight."""
    quantize_dynamic(source, out, weight_type=QuantType.QUInt8)


def pairs(rows: Sequence[Feeds], activations: QuantType) -> Build:
    """Return a build that quantises activations too, by steps that it calibrates on `rows`."""

    class Rows(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows = iter(rows)

        def get_next(self) -> Feeds | None:
            return next(self._rows, None)

    def build(source: Path, out: Path) -> None:
        quantize_static(
            source, out, Rows(), quant_format=QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8,
            activation_type=activations,
        )  # fmt: skip

    return build


def rows_of(file: Path, count: int) -> list[Feeds]:
    """Return questions with their passages as int64 inputs of one row each, cut at 256 tokens.

    Raises:
        SystemExit: If the file is not there.
    """
    if not file.is_file():
        raise SystemExit(f"{file} is missing; give the folder that holds {QUESTIONS}, as SuperGLUE is unpacked")
    tokenizer, found = export.tokenizer(), []
    with file.open(encoding="utf-8") as lines:
        for _, line in zip(range(count), lines, strict=False):
            row = json.loads(line)
            one = tokenizer.encode(row["question"], row["passage"])
            given = zip(export.INPUTS, (one.ids, one.attention_mask, one.type_ids), strict=True)
            found.append({name: np.array([numbers], np.int64) for name, numbers in given})
    return found


def embed(opened: ort.InferenceSession, rows: Sequence[Feeds]) -> Floats:
    """Return the mean of the token vectors of each row, [rows, width]."""
    return np.stack([opened.run([export.OUTPUT], accepted(opened, row))[0][0].mean(axis=0) for row in rows])


def error(reference: Floats, other: Floats) -> float:
    """Return the mean distance of embeddings from those of the reference, relative to their length."""
    away = np.linalg.norm(other - reference, axis=1) / np.linalg.norm(reference, axis=1)
    return float(away.mean())


@dataclass(frozen=True)
class Model:
    """What one model takes and how right it is.

    Attributes:
        ms: Milliseconds of the processor a row, the mean over rows, in each round; the median of quotients counts.
        error: Mean relative error of embeddings against float32.
        megabytes: The size of its file.
    """

    ms: list[float]
    error: float
    megabytes: float


def made(source: Path, kinds: Mapping[str, Build], folder: Path) -> dict[str, Path]:
    """Build all models: the export, ffc's of it, and each kind as it came and recompiled."""
    paths = {FLOAT32: source, FFC: folder / "ffc.onnx"}
    compiled("fuse,int8")(source, paths[FFC])
    for name, build in kinds.items():
        came, now = folder / f"{len(paths)}.came.onnx", folder / f"{len(paths)}.now.onnx"
        build(source, came)
        compiled(PASSES)(came, now)
        paths |= {name: came, recompiled(name): now}
    return paths


def recompiled(kind: str) -> str:
    """Return what a kind is called once it has been compiled."""
    return f"{kind}, recompiled"


def measured(paths: Mapping[str, Path], rows: Sequence[Feeds], rounds: int) -> dict[str, Model]:
    """Time all models on all rows, round by round in an order that turns; the first does not count."""
    sessions = {name: session(path, 1) for name, path in paths.items()}
    reference = embed(sessions[FLOAT32], rows)
    errors = {name: error(reference, embed(opened, rows)) for name, opened in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(rounds + 1):
        shift = turn % len(sessions)
        names = list(sessions)[shift:] + list(sessions)[:shift]
        for name in names:
            spent = [taken(sessions[name], accepted(sessions[name], row)) for row in rows]
            times[name].append(1e3 * statistics.fmean(spent))
    return {name: Model(times[name][1:], errors[name], paths[name].stat().st_size / 1e6) for name in sessions}


def taken(opened: ort.InferenceSession, row: Feeds) -> float:
    """Return the processor seconds of one run."""
    start = time.process_time()
    opened.run(None, row)
    return time.process_time() - start


def ratio(before: Model, after: Model) -> float:
    """Return how many times as fast the second is, the median over rounds."""
    return statistics.median(one / other for one, other in zip(before.ms, after.ms, strict=True))


def table(found: Mapping[str, Model], kinds: Sequence[str]) -> Table:
    """Lay the results out, a kind a row."""
    result = Table(title=f"MiniLM as it came, and compiled with {PASSES}", title_justify="left")
    for column in ("", "ms", "ms now", "times as fast", "error", "error now", "MB", "MB now"):
        result.add_column(column, justify="right" if column else "left")
    for kind in kinds:
        before, after = found[kind], found[recompiled(kind)]
        ms = (f"{statistics.median(each.ms):.2f}" for each in (before, after))
        errors = (f"{each.error:.4f}" for each in (before, after))
        sizes = (f"{each.megabytes:.0f}" for each in (before, after))
        result.add_row(kind, *ms, f"{ratio(before, after):.2f}", *errors, *sizes)
    return result


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help=f"the folder that holds {QUESTIONS}")
    parser.add_argument("--rows", type=int, default=24, help="rows to measure on, one at a time (24)")
    parser.add_argument("--calibration", type=int, default=16, help="rows that steps are calibrated on (16)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, interleaved; medians count (7)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args()


def main() -> None:
    """Build, measure, print and write the record."""
    given = arguments()
    rows = rows_of(given.data / QUESTIONS / MEASURED, given.rows)
    seen = rows_of(given.data / QUESTIONS / CALIBRATED, given.calibration)
    kinds = {
        "int8 by column": ort_int8,
        "int8": int8_tensor,
        "uint8": uint8_tensor,
        "QDQ": pairs(seen, QuantType.QInt8),  # as quantize_static does where it is told no more
        "QDQ, uint8": pairs(seen, QuantType.QUInt8),
    }
    console, where = Console(), machine()
    console.print(str(where))
    logging.disable(logging.WARNING)  # the quantiser warns of a missing pre-processing on every model
    with tempfile.TemporaryDirectory() as folder:
        source = export.export(Path(folder) / "minilm.onnx")
        found = measured(made(source, kinds, Path(folder)), rows, given.rounds)
    console.print(table(found, list(kinds)))
    own = found[FFC]
    console.print(f"{FFC} of the export itself: {statistics.median(own.ms):.2f} ms, error {own.error:.4f}")
    if given.json:
        tokens = statistics.fmean(row[export.INPUTS[0]].size for row in rows)
        save(
            given.json, "ffc.examples.requantised/1", where, 0, passes=PASSES, rows=len(rows),
            tokens=tokens, times_as_fast={kind: ratio(found[kind], found[recompiled(kind)]) for kind in kinds},
            models={name: asdict(model) for name, model in found.items()},
        )  # fmt: skip


if __name__ == "__main__":
    main()
