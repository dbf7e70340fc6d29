"""What all weights of a model hold, in one line: a digest, and a sketch that tells how far they moved.

The sketch is that of Charikar, Chen and Farach-Colton, "Finding frequent items in data streams" (ICALP 2002): each
element, with a random sign, is added to one of a few sums. The expected squared distance of two such sketches is that
of what they were made of, so that two locks tell how far weights moved though neither holds them. With 32 sums the
estimate is within a quarter of it, most of the time. Which signs a tensor gets depends on its place as the text of a
model names it: in which section, at which operator of its kind there, at which operand. So a node that comes or goes
with a weight moves the sums by that weight, and those of other layers count as what they are, unmoved.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ffc.ci.matching.snapshot import Graph, Snapshot, Weight
from ffc.graph.text import ENDS_SECTION

__all__ = ["Sketch", "of_snapshot"]

_SUMS = 32
_BLOCK = 1 << 16
_SIGNS = 1 << 21
_SCALE = float(1 << 20)
_LARGEST = 1024.0 * _SCALE
_BYTE = 1 / 4096
"""What a step of an int8 weight counts: 127 of them are about as much as a float weight is large."""

_TENSOR = re.compile(r"\w+(\[[\d,]*\])?\{[0-9a-f]{64}\}")


@dataclass(frozen=True)
class Sketch:
    """The weights of a model.

    Attributes:
        digest: The sha256, in hex, of the contents of all tensors that the text of a model leaves out, in the order in
            which nodes read them.
        norm: The root of the sum of their squares.
        sums: Sums of their elements with random signs.
    """

    digest: str
    norm: float
    sums: tuple[float, ...]

    def distance(self, other: Sketch) -> float:
        """Return about how far other weights are from these, relative to the norm of these."""
        moved = float(np.linalg.norm(np.subtract(self.sums, other.sums)))
        return moved / self.norm if self.norm else float(moved > 0)

    def __str__(self) -> str:
        return f"sha256:{self.digest} norm {self.norm:.6g} sketch {' '.join(f'{each:.6g}' for each in self.sums)}"

    @classmethod
    def parse(cls, text: str) -> Sketch:
        """Read what `str` gives.

        Raises:
            ValueError: If it is nothing of the kind.
        """
        found = re.fullmatch(r"sha256:([0-9a-f]{64}) norm (\S+) sketch (\S+(?: \S+)*)", text)
        if found is None:
            raise ValueError("weights are 'sha256:<digest> norm <number> sketch <numbers>'")
        digest, norm, sums = found[1], found[2], found[3].split(" ")
        if len(sums) != _SUMS:
            raise ValueError(f"a sketch has {_SUMS} numbers, found {len(sums)}")
        return cls(digest, float(norm), tuple(float(each) for each in sums))


def of_snapshot(snapshot: Snapshot) -> Sketch:
    """Return the sketch of a model whose weights are known."""
    digest = hashlib.sha256()
    total, squares = np.zeros(_SUMS, np.int64), 0.0
    graphs = {"": snapshot.graph, **{name: snapshot.functions[name].graph for name in sorted(snapshot.functions)}}
    for name, graph in graphs.items():
        for place, content, weight in _weights(graph, name):
            digest.update(content.encode())
            if weight is not None and weight.tensor is not None:
                sums, more = _summed(weight.tensor, place)
                total += sums
                squares += more
    return Sketch(digest.hexdigest(), float(np.sqrt(squares)), tuple(float(each) / _SCALE for each in total))


def _weights(graph: Graph, scope: str) -> Iterator[tuple[str, str, Weight | None]]:
    """Yield place and content of what the text leaves out, once for each place that reads it."""
    section, counts = 0, Counter[str]()
    for node in graph.nodes:
        counts[node.op] += 1
        place = f"{scope}/{section}.{node.op}{counts[node.op]}"
        for text in node.attributes.values():
            if _TENSOR.fullmatch(text):
                yield place, text, None
        for slot, operand in enumerate(node.operands):
            if isinstance(operand, Weight) and (operand.is_large or _is_learned(operand)):
                yield f"{place}:{slot}", operand.key, operand
        for name in sorted(node.graphs):
            yield from _weights(node.graphs[name], f"{place}/{name}")
        if ENDS_SECTION.search(node.op.rpartition(".")[2]):
            section += 1
            counts.clear()


def _is_learned(weight: Weight) -> bool:
    return weight.size > 1 and weight.type.startswith(("f", "bf", "i8", "u8"))


def _summed(tensor: ir.TensorProtocol, place: str) -> tuple[np.ndarray, float]:
    """Return the sums of a tensor with the signs of its place, and the sum of its squares.

    The sums are of whole numbers, and so do not depend on the order in which a processor adds.
    """
    array = tensor.numpy()
    sums, squares = np.zeros(_SUMS, np.int64), 0.0
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        return sums, 0.0
    factor = _SCALE * (1.0 if array.dtype.kind == "f" else _BYTE)
    flat = array.reshape(-1)
    for block, start in enumerate(range(0, len(flat), _BLOCK)):
        part = flat[start : start + _BLOCK].astype(np.float32) * np.float32(factor)
        np.nan_to_num(part, copy=False, posinf=0.0, neginf=0.0)
        whole = np.rint(np.clip(part, -_LARGEST, _LARGEST, out=part), out=part).astype(np.int32)
        squares += float(np.square(part, dtype=np.float64).sum())
        offset = _offset(f"{place}#{block}")
        whole *= _signs()[offset : offset + len(whole)]
        full = len(whole) // _SUMS * _SUMS
        sums += whole[:full].reshape(-1, _SUMS).sum(axis=0, dtype=np.int64)
        sums[: len(whole) - full] += whole[full:]
    return sums, squares / _SCALE**2


def _offset(place: str) -> int:
    """Return where the signs of a block begin: anywhere, and always the same."""
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "little") % (_SIGNS - _BLOCK)


@functools.cache
def _signs() -> np.ndarray:
    """Return fixed random signs, the same with every version of numpy."""
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(b"ffc.lock").digest(_SIGNS // 8), np.uint8))
    return bits.astype(np.int32) * 2 - 1
