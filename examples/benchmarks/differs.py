"""Count what differs of ONNX graphs report against the edits that were made.

Three small random encoders, each by both of torch's exporters, get seeded edits, each alone and ten at once
(tests/ci/edits.py). Every differ sees the edited model as an editor would leave it, and in disguise: the same graph
under other names and in another order. It is right where it reports as many changes as were made. Run it as

    PYTHONPATH=. python examples/benchmarks/differs.py

with the extras `differs` and `train` installed; the first brings the peers. These count as follows, to their favour
where there is a choice:

- onnxsim: what its `--graph-diff` prints. The command compares a model with its own simplification alone; the
  function behind it takes any two. Nodes removed, added and changed count; values do not, which would count twice.
- diffonnx: nodes and initializers without a like in the other model, of each the larger side: a node that
  changed is without a like on both sides and counts once.
- position: the n-th node and the n-th initializer of one file against those of the other.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from record import save as save_record
from rich.console import Console
from rich.table import Table

from ffc.ci.diff.diff import diff
from ffc.graph.files.loading import load
from ffc.graph.files.saving import save
from ffc.runtime.machine import machine
from tests.ci.disguise import disguise
from tests.ci.edits import ALL, Edit, edit, named
from tests.encoders import Export, Kind, Way

KINDS: tuple[Kind, ...] = ("bert", "roberta", "distilbert")
WAYS: tuple[Way, ...] = ("TorchScript sdpa", "dynamo sdpa")
AT_ONCE = 10

Message = onnx.NodeProto | onnx.TensorProto


def ours(before: Path, after: Path) -> int:
    """Count the changes that `ffc diff` reports."""
    return sum(group.count for group in diff(before, after).groups)


def onnxsim(before: Path, after: Path) -> int:
    """Count the nodes that onnxsim reports as removed, added or changed."""
    from onnxsim.model_info import diff_graphs

    found = diff_graphs(onnx.load(before), onnx.load(after))
    return len(found.removed_nodes) + len(found.added_nodes) + len(found.changed_nodes)


def diffonnx(before: Path, after: Path) -> int:
    """Count the nodes and initializers that diffonnx finds in one model alone."""
    from diffonnx.static import GraphDiff, StaticDiff

    found = StaticDiff(onnx.load(before), onnx.load(after), GraphDiff(kernels=[])).summary().graph_matches
    return sum(max(len(found[part].a_diff), len(found[part].b_diff)) for part in ("nodes", "initializers"))


def by_position(before: Path, after: Path) -> int:
    """Count the places in the lists of nodes and of initializers at which two files differ."""
    one, other = onnx.load(before).graph, onnx.load(after).graph
    places: list[tuple[Message | None, Message | None]] = [
        *itertools.zip_longest(one.node, other.node),
        *itertools.zip_longest(one.initializer, other.initializer),
    ]
    return sum(here != there for here, there in places)


DIFFERS: dict[str, Callable[[Path, Path], int]] = {
    "ffc": ours,
    "onnxsim": onnxsim,
    "diffonnx": diffonnx,
    "position": by_position,
}


@dataclass(frozen=True)
class Pair:
    """Two models, and what each differ said of them.

    Attributes:
        export: Encoder and exporter.
        edits: What was done.
        disguised: Whether names and order were changed too.
        reported: How many changes each differ reported.
        seconds: How long each took.
    """

    export: str
    edits: tuple[Edit, ...]
    disguised: bool
    reported: dict[str, int]
    seconds: dict[str, float]


def edited(original: ir.Model, count: int, seed: Sequence[int]) -> Iterator[tuple[ir.Model, list[Edit]]]:
    """Yield a copy without an edit, `count` with one, kinds in turn, and a tenth as many with ten at once."""
    yield original, []
    for size, number in ((1, count), (AT_ONCE, count // AT_ONCE)):
        for index in range(number):
            kinds = ALL if size > 1 else [ALL[index % len(ALL)]]
            yield edit(original, np.random.default_rng([*seed, size, index]), size, kinds)


def pairs(source: Export, count: int, seed: int, differs: Sequence[str]) -> Iterator[Pair]:
    """Export an encoder, edit it, and yield what the differs say."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        original = named(load(source.write(Path(folder))))
        save(original, before)
        place = KINDS.index(source.kind), WAYS.index(source.way)
        for index, (model, made) in enumerate(edited(original, count, [seed, *place])):
            for disguised in (False, True):
                shown = disguise(model, np.random.default_rng([seed, *place, index]))[0] if disguised else model
                save(shown, after)
                reported, seconds = {}, {}
                for name in differs:
                    started = time.perf_counter()
                    reported[name] = DIFFERS[name](before, after)
                    seconds[name] = time.perf_counter() - started
                yield Pair(f"{source.kind}, {source.way}", tuple(made), disguised, reported, seconds)


def summary(found: Sequence[Pair], differs: Sequence[str]) -> dict[str, object]:
    """Sum up pairs: changes made and, of each differ, changes reported, pairs in which that is right, and silence."""
    said = {
        name: {
            "reported": sum(pair.reported[name] for pair in found),
            "right": sum(pair.reported[name] == len(pair.edits) for pair in found),
            "silent": sum(pair.reported[name] == 0 for pair in found if pair.edits),
            "seconds": statistics.median(pair.seconds[name] for pair in found),
        }
        for name in differs
    }
    return {"pairs": len(found), "made": sum(len(pair.edits) for pair in found), "differs": said}


def grouped(found: Iterable[Pair], name: str, differs: Sequence[str]) -> list[dict[str, object]]:
    """Sum up by size of the edit and disguise, and by the export, or by the kind of edits made alone."""
    groups: dict[tuple[int, bool, str], list[Pair]] = {}
    for pair in found:
        key = pair.export if name == "export" else pair.edits[0].kind
        groups.setdefault((len(pair.edits), pair.disguised, key), []).append(pair)
    return [
        {"at_once": size, "disguised": disguised, name: key, **summary(group, differs)}
        for (size, disguised, key), group in sorted(groups.items())
    ]


def table(found: Sequence[Pair], differs: Sequence[str]) -> Table:
    """Return the totals: changes reported, and in how many pairs they are as many as were made."""
    shown = Table(title="changes reported (pairs in which they are as many as were made)", title_justify="left")
    for column in ("edits", "names", "made", *differs):
        shown.add_column(column, justify="left" if column in ("edits", "names") else "right")
    sizes = {0: "none", 1: "one", AT_ONCE: "ten"}
    for size, disguised in itertools.product(sizes, (False, True)):
        here = [pair for pair in found if len(pair.edits) == size and pair.disguised == disguised]
        cells = []
        for name in differs:
            right = sum(pair.reported[name] == size for pair in here)
            cells.append(f"{sum(pair.reported[name] for pair in here)} ({right}/{len(here)})")
        shown.add_row(sizes[size], "new" if disguised else "kept", str(size * len(here)), *cells)
    return shown


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=100, help="edits an export, each alone and ten at once (100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the edits and of the disguises (0)")
    parser.add_argument("--differs", default=",".join(DIFFERS), help=f"which ({','.join(DIFFERS)})")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write the JSON."""
    given = arguments()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    console, differs = Console(), given.differs.split(",")
    found: list[Pair] = []
    for kind, way in itertools.product(KINDS, WAYS):
        console.print(f"{kind}, {way}")
        found += pairs(Export(kind, way=way), given.edits, given.seed, differs)
    console.print(table(found, differs))
    alone = [pair for pair in found if len(pair.edits) == 1]
    if given.json:
        packages = ["onnx", "torch", "transformers", *(name for name in ("onnxsim", "diffonnx") if name in differs)]
        versions = {name: importlib.metadata.version(name) for name in packages}
        by_export, by_kind = grouped(found, "export", differs), grouped(alone, "kind", differs)
        results = {"versions": versions, "kinds": ALL, "exports": by_export, "alone_by_kind": by_kind}
        save_record(given.json, "ffc.examples.differs/1", machine(), given.seed, **results)


if __name__ == "__main__":
    main()
