"""BERT at every opset that exporters of torch write: fused whole and right each time, trained or not.

Before opset 14 torch writes no scaled product of attention, so attention is that which transformers spells out, and before 10
it cannot slice by a computed length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ffc
from tests import encoders
from tests.coverage import matrix, tables
from tests.graphs import count

TITLE = "opsets"
HEADING = ("exporter", "opset", "norms", "attention", "norm", "embeddings", "equal")
OPSETS: dict[encoders.Way, tuple[int, ...]] = {
    "TorchScript eager": (10, 11, 12, 13, 14, 16, 17),
    "dynamo sdpa": (18, 20, 21, 23, 24, 25),
}
DEFAULT = 20
"""What the new exporter writes unless it is told otherwise; other tests export it too."""

QUICK = {(11, True), (11, False), (13, False), (16, True), (DEFAULT, True)}
"""One of each kind: Softmax over several axes, axes as inputs, norms written out; the others are like one of them."""


@dataclass(frozen=True)
class Cell:
    """One export.

    Attributes:
        way: Exporter and attention.
        opset: Its opset.
        trained: Whether norms have parameters of their own; otherwise gamma is 1 and beta 0.
    """

    way: encoders.Way
    opset: int
    trained: bool

    @property
    def options(self) -> dict[str, Any]:
        """What `exported` is told."""
        plain = {} if self.trained else {"plain_norms": True, "zero_biases": True}
        return {"way": self.way, "layers": matrix.LAYERS, **plain, **({} if self.opset == DEFAULT else {"opset": self.opset})}


def cells() -> Iterator[object]:
    """Yield all, those that are not `QUICK` marked slow."""
    for way, opsets in OPSETS.items():
        for opset in opsets:
            for trained in (True, False):
                marks = [] if (opset, trained) in QUICK else [pytest.mark.slow]
                name = f"{way.split()[0]}, opset {opset}, {'trained' if trained else 'untrained'}"
                yield pytest.param(Cell(way, opset, trained), marks=marks, id=name)


@pytest.mark.parametrize("cell", list(cells()))
def test_attention_norms_and_embeddings_are_fused_and_right(
    cell: Cell, exported: Callable[..., Path], record_property: Callable[[str, object], None]
) -> None:
    path = exported("bert", **cell.options)
    assert ffc.load(path).opset_imports[""] == cell.opset
    result = ffc.compile(path, "fuse")
    changes = matrix.step(result, "fuse").changes
    worst = matrix.apart(matrix.Cell("bert", cell.way, head=False), path, result.model)
    found = [f"{changes.get('attention', 0)}/{matrix.LAYERS}", f"{changes.get('add-norm', 0)}/{2 * matrix.LAYERS}"]
    row = [cell.way.split()[0], str(cell.opset), "trained" if cell.trained else "untrained", *found]
    record_property(tables.named(TITLE), dict(zip(HEADING, [*row, f"{changes.get('embed', 0)}/1", f"{worst:.0e}"], strict=True)))
    assert (changes["attention"], changes["add-norm"], changes["embed"]) == (matrix.LAYERS, 2 * matrix.LAYERS, 1)
    assert (changes["linear-gelu"], changes["linear"]) == (matrix.LAYERS, 6 * matrix.LAYERS)
    assert count(result.model, "Softmax", "Erf", "LayerNormalization", "Sqrt", "Pow", "IsNaN", "NonZero") == 0
    assert worst <= 1e-4
