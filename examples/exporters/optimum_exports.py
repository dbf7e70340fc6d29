"""Export MiniLM in every way that optimum-onnx offers, compile each file with ffc, and hold it against float32.

optimum-onnx needs an older transformers than ffc, so that it gets an environment of its own. Exports that are there
from an earlier run are taken as they are.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import venv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from export import INPUTS, model_folder, tokenizer
from meaning import SENTENCES, accepted, latency, session
from record import save
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import ffc
from ffc.runtime.machine import machine

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
LENGTH = 32
"""Tokens a row of the static export."""

TEXTS, WIDTH = 16, 120
PADDINGS = ("full", "right", "left", "holed")

_ANY = "export onnx --model {model} --task feature-extraction --library-name"
_EXPORT = f"{_ANY} transformers"
_QUANTIZE = "onnxruntime quantize --onnx_model {plain}"
WAYS = {
    "plain": _EXPORT,
    "sentence-transformers": f"{_ANY} sentence_transformers",
    "O2": f"{_EXPORT} --optimize O2",
    "O3": f"{_EXPORT} --optimize O3",
    "fp16": f"{_EXPORT} --dtype fp16",
    "static": f"{_EXPORT} --no-dynamic-axes --batch_size 1 --sequence_length {LENGTH}",
    **{
        f"int8 {processor}{', per channel' * each}": f"{_QUANTIZE} --{processor}{' --per_channel' * each}"
        for processor in ("avx2", "avx512_vnni", "arm64")
        for each in (False, True)
    },
}
"""Arguments of ``optimum-cli`` by what the table calls the export."""

Ids = npt.NDArray[np.int64]
Feeds = dict[str, Ids]


@dataclass
class Row:
    """What became of one export.

    Attributes:
        export: What the table calls it.
        passes: The pipeline.
        failed: Why nothing was compiled, or "".
        nodes: Of the file as it came, and of the result.
        changes: By pass, how often each of its changes was made.
        error: By padding, how far the result's vectors of real tokens are from the float32 export's, relative to their
            length: a root mean square.
        error_before: The same of the file as it came.
        milliseconds: A text, of the file as it came and of the result.
    """

    export: str
    passes: str
    failed: str = ""
    nodes: tuple[int, int] = (0, 0)
    changes: dict[str, Mapping[str, int]] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)
    error_before: dict[str, float] = field(default_factory=dict)
    milliseconds: tuple[float, float] = (0.0, 0.0)


def environment(folder: Path, torch: str) -> Path:
    """Return the folder of an environment with optimum's commands, made if it is not there."""
    place = folder / "env"
    if not (place / "bin" / "optimum-cli").exists():
        venv.create(place, with_pip=True, clear=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *shlex.split(torch)], check=True)
        subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], check=True)
    return place


def exported(name: str, folder: Path, place: Path) -> Path:
    """Return the file of one export, made by optimum if it is not there.

    Raises:
        SystemExit: optimum failed; what it said is shown.
    """
    out = folder / name.replace(", ", "-").replace(" ", "-")
    if not list(out.glob("*.onnx")):
        text = WAYS[name].format(model=shlex.quote(str(model_folder())), plain=shlex.quote(str(folder / "plain")))
        flag = [] if text.startswith("export") else ["--output"]  # an export takes its folder without a flag
        command = [str(place / "bin" / "optimum-cli"), *shlex.split(text), *flag, str(out)]
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=own)
        if done.returncode:
            raise SystemExit(f"{shlex.join(command)}\n{done.stderr}")
    (file,) = out.glob("*.onnx")
    return file


def feeds(padding: str, texts: Sequence[str], static: bool) -> list[Feeds]:
    """Return texts as inputs, int64 `[1, LENGTH]` each where `static`, `[4, the longest]` otherwise.

    Args:
        padding: One of `PADDINGS`: rows of `LENGTH` tokens without any; padded on the right or on the left; padded on
            the right and with every third token hidden.
        texts: The texts.
        static: Whether sizes are fixed.
    """
    words = tokenizer()
    words.no_padding()
    rows = [words.encode(text).ids for text in texts]
    if padding == "full":
        # Long enough for the static export: each text goes on with those after it.
        rows = [list(chain(*rows[start:], *rows[:start]))[:LENGTH] for start in range(len(rows))]
    step = 1 if static else 4
    return [
        _padded(rows[start : start + step], padding, LENGTH if static else 0) for start in range(0, len(rows), step)
    ]


def _padded(rows: Sequence[Sequence[int]], padding: str, length: int) -> Feeds:
    length = length or max(map(len, rows))
    ids, mask = np.zeros((2, len(rows), length), np.int64)
    for row, tokens in enumerate(rows):
        cut = list(tokens[:length])
        place = slice(length - len(cut), length) if padding == "left" else slice(len(cut))
        ids[row, place], mask[row, place] = cut, 1
    if padding == "holed":
        mask[:, 2::3] = 0  # the first token, and with it every row, stays
    return dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))


def errors(reference: Path, path: Path, texts: Sequence[str], static: bool) -> dict[str, float]:
    """Return by padding how far the token vectors of a model are from those of a reference, at real tokens."""
    one, two = session(reference), session(path)
    found = {}
    for padding in PADDINGS:
        apart, whole = 0.0, 0.0
        for given in feeds(padding, texts, static):
            real = given["attention_mask"] > 0
            wanted, had = (each.run(None, accepted(each, given))[0][real].astype(np.float64) for each in (one, two))
            apart, whole = apart + float(np.sum((had - wanted) ** 2)), whole + float(np.sum(wanted**2))
        found[padding] = (apart / whole) ** 0.5
    return found


def compiled(name: str, path: Path, reference: Path, out: Path, texts: Sequence[str], rounds: int) -> Row:
    """Compile one export, and measure what came of it."""
    row = Row(name, "dequantize,fuse,int8" if name.startswith("int8") else "fuse,int8")
    static = name == "static"
    row.error_before = errors(reference, path, texts, static)
    before = len(onnx.load(path).graph.node)
    try:
        result = ffc.compile(path, row.passes, out=out)
    except ffc.FfcError as error:
        row.failed = f"{type(error).__name__}: {error}"
        return row
    row.nodes = (before, len(onnx.load(out).graph.node))
    row.changes = {step.text: dict(step.changes) for step in result.report.steps}
    row.error = errors(reference, out, texts, static)
    timed = [given for text in texts for given in feeds("right", [text], static)]
    taken = latency({"before": session(path), "after": session(out)}, timed, rounds)
    row.milliseconds = (taken["before"], taken["after"])
    return row


def table(rows: Iterable[Row]) -> Table:
    """Lay out the rows, each error from the file as it came to the result."""
    result = Table(title="MiniLM as optimum-onnx writes it, compiled by ffc", box=SIMPLE_HEAD, pad_edge=False)
    result.add_column("export", overflow="fold")
    errors = ("error, none or\npadded right", "error, padded\nleft or holed")
    for column in ("nodes", "attention", "norms", "int8", *errors, "ms", "speed-up"):
        result.add_column(column, justify="right")
    for row in rows:
        if row.failed:
            result.add_row(row.export, "FAILED")
            continue
        fused, (before, after) = row.changes.get("fuse", {}), row.milliseconds
        result.add_row(
            row.export,
            f"{row.nodes[0]} → {row.nodes[1]}",
            str(_count(fused, "attention")),
            str(_count(fused, "norm") - fused.get("add-norm", 0)),
            str(sum(row.changes.get("int8", {}).values())),
            _errors(row, "full", "right"),
            _errors(row, "left", "holed"),
            f"{before:.1f} → {after:.1f}",
            f"{before / after:.2f}×",
        )
    return result


def _errors(row: Row, *paddings: str) -> str:
    """Return the largest error under these paddings, before and after."""
    return " → ".join(f"{max(found[each] for each in paddings):.2g}" for found in (row.error_before, row.error))


def _count(changes: Mapping[str, int], word: str) -> int:
    """Return how often changes of this kind were made, of what onnxruntime had fused already too."""
    return sum(count for what, count in changes.items() if word in what.lower())


def main() -> int:
    """Export, compile, print and record; return 1 where an export is not compiled."""
    given = _arguments()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, width=WIDTH)
    place = given.env or environment(folder, given.torch)
    texts = SENTENCES.read_text(encoding="utf-8").splitlines()[::TEXTS][:TEXTS]
    reference = exported("plain", folder, place)
    rows = []
    for name in given.only or WAYS:
        path = exported(name, folder, place)
        rows.append(compiled(name, path, reference, path.with_suffix(".ffc"), texts, given.rounds))
        console.print(f"{name}: {rows[-1].failed or 'compiled'}", markup=False)
    console.print(table(rows))
    if given.json:
        settings = {"requirements": REQUIREMENTS.read_text(encoding="utf-8").split("\n")[1:-1], "torch": given.torch}
        found = {"rounds": given.rounds, "texts": len(texts), "rows": [asdict(row) for row in rows]}
        save(given.json, "ffc.examples.optimum-exports/1", machine(), 0, **settings, **found)
    return 1 if any(row.failed for row in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the environment, the exports and the results go")
    parser.add_argument("--env", type=Path, help="an environment that has optimum-cli, to be used instead")
    parser.add_argument("--torch", default="torch==2.13.0", help="what pip is told to install as torch, there")
    parser.add_argument("--only", nargs="+", choices=WAYS, help="exports by name (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds over all texts (default 5)")
    parser.add_argument("--json", type=Path, help="where to write the record")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
