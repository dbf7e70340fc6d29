"""Time an exported encoder as it is, after onnxruntime's own tools, and after ffc, all in one process."""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from contestants import CONTESTANTS, EXPORT, PEER, Contestant
from feeds import MASKS, Feed, feed, vocabulary
from record import save
from rich.console import Console
from rich.table import Table

from ffc.runtime.machine import machine

ROUND_SECONDS = 0.05
"""A round repeats a short model until the export has taken about this long, so that the clock's grain is no matter."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One input shape and mask, and what every contestant took for it.

    Attributes:
        length: Tokens a row, padding included.
        mask: ``"full"`` or ``"padded"``.
        ms: By contestant, the median over rounds of the milliseconds of one run.
        rounds: By contestant, the milliseconds of one run in each round.
        cosine: By contestant, the cosine of its first output with the export's, at real tokens.
    """

    length: int
    mask: str
    ms: dict[str, float]
    rounds: dict[str, list[float]]
    cosine: dict[str, float]


def prepare(
    contestants: Sequence[Contestant], source: Path, folder: Path, sample: Feed, threads: int
) -> tuple[dict[str, ort.InferenceSession], dict[str, str]]:
    """Build and open every contestant and run it once.

    Returns:
        The sessions of those that work and, of those that do not, the reason in one line.
    """
    sessions: dict[str, ort.InferenceSession] = {}
    failed: dict[str, str] = {}
    for number, contestant in enumerate(contestants):
        out = folder / f"{number}.onnx"
        try:
            contestant.build(source, out)
            opened = session(out, threads)
            opened.run(None, accepted(opened, sample))
        except Exception as error:  # whatever a tool raises is its result here
            failed[contestant.name] = one_line(error)
        else:
            sessions[contestant.name] = opened
    return sessions, failed


def session(path: Path, threads: int) -> ort.InferenceSession:
    """Return a CPU session on `path` with `threads` threads and default graph optimization."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it would log, it also raises
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def accepted(opened: ort.InferenceSession, given: Feed) -> Feed:
    """Return those of the inputs that the model has."""
    names = {i.name for i in opened.get_inputs()}
    return {name: value for name, value in given.items() if name in names}


def one_line(error: Exception) -> str:
    """Return an error as its class and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def measure(sessions: dict[str, ort.InferenceSession], length: int, mask: str, given: Feed, rounds: int) -> Case:
    """Time all contestants on one input, interleaved round by round in an order that turns.

    Args:
        sessions: The contestants, the export among them.
        length: Tokens a row, for the record.
        mask: Kind of mask, for the record.
        given: The inputs.
        rounds: How many rounds count, after one that does not.
    """
    feeds = {name: accepted(opened, given) for name, opened in sessions.items()}
    real = given["attention_mask"] == 1
    outputs = {name: opened.run(None, feeds[name])[0] for name, opened in sessions.items()}
    cosines = {name: cosine(outputs[EXPORT], out, real) for name, out in outputs.items()}
    repeats = math.ceil(ROUND_SECONDS / taken(sessions[EXPORT], feeds[EXPORT], 1))
    times: dict[str, list[float]] = {name: [] for name in sessions}
    names = list(sessions)
    for turn in range(rounds + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(taken(sessions[name], feeds[name], repeats) * 1e3)
    counted = {name: values[1:] for name, values in times.items()}
    medians = {name: statistics.median(values) for name, values in counted.items()}
    return Case(length, mask, medians, counted, cosines)


def taken(opened: ort.InferenceSession, given: Feed, repeats: int) -> float:
    """Return the mean seconds of one run over `repeats` runs."""
    start = time.perf_counter()
    for _ in range(repeats):
        opened.run(None, given)
    return (time.perf_counter() - start) / repeats


def cosine(reference: Array, other: Array, real: npt.NDArray[np.bool_]) -> float:
    """Return the cosine of two outputs, at real tokens where the outputs have a token axis."""
    if reference.shape != other.shape:
        return math.nan
    per_token = reference.shape[:2] == real.shape and reference.ndim == 3
    a, b = ((x[real] if per_token else x).astype(np.float64).ravel() for x in (reference, other))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def table(case: Case, failed: dict[str, str]) -> Table:
    """Lay one case out: a contestant a row, those that failed with their reason."""
    result = Table(title=f"length {case.length}, {case.mask} mask", title_justify="left")
    result.add_column("contestant", overflow="fold")
    for column in ("ms", "x export", f"x {PEER}", "cosine"):
        result.add_column(column, justify="right")
    for name, ms in case.ms.items():
        peer = f"{case.ms[PEER] / ms:.2f}" if PEER in case.ms else "-"
        result.add_row(name, f"{ms:.2f}", f"{case.ms[EXPORT] / ms:.2f}", peer, f"{case.cosine[name]:.5f}")
    for name in failed:
        result.add_row(name, "failed", "-", "-", "-")
    return result


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="an encoder as torch.onnx.export wrote it")
    parser.add_argument("--lengths", default="16,64,128,256", help="token counts, by commas (default 16,64,128,256)")
    parser.add_argument("--batch", type=int, default=1, help="rows a run (default 1)")
    parser.add_argument("--threads", type=int, default=1, help="threads a session (default 1)")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default 7)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random inputs (default 0)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args()


def main() -> None:
    """Build the contestants, time them at each length and mask, print tables and write the JSON asked for."""
    given = arguments()
    lengths = [int(length) for length in given.lengths.split(",")]
    rng, words = np.random.default_rng(given.seed), vocabulary(given.model)
    inputs = [(n, mask, feed(mask, words, given.batch, n, rng)) for n in lengths for mask in MASKS]
    longest = max(inputs, key=lambda case: case[0])[2]
    with tempfile.TemporaryDirectory() as folder:
        sessions, failed = prepare(CONTESTANTS, given.model, Path(folder), longest, given.threads)
    if EXPORT in failed:
        raise SystemExit(f"{given.model}: the export itself does not run: {failed[EXPORT]}")
    where, console = machine(), Console()
    console.print(f"{where}, threads: {given.threads}")
    cases: list[Case] = []
    for length, mask, one in inputs:
        cases.append(measure(sessions, length, mask, one, given.rounds))
        console.print(table(cases[-1], failed))
    for name, reason in failed.items():
        console.print(f"{name} failed: {reason}", markup=False, highlight=False, soft_wrap=True)
    if given.json:
        save(
            given.json, "ffc.examples.latency/2", where, given.seed, model=given.model.name, threads=given.threads,
            batch=given.batch, failed=failed, cases=[asdict(case) for case in cases],
        )  # fmt: skip


if __name__ == "__main__":
    main()
