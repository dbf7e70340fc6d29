"""How much a model may ask for before it is refused: sizes of files and graphs, and what running it would take."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ffc.errors import UsageError, nearest

__all__ = ["Limits", "active", "applied", "parse"]

_GIB = 1 << 30
_NUMBER = re.compile(r"([0-9]+)([KMGT]?)", re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _limit(default: int, doc: str) -> Any:
    return field(default=default, metadata={"help": doc})


@dataclass(frozen=True)
class Limits:
    """What a model may ask for.

    A model of a few hundred bytes can ask for years and terabytes, and neither onnx nor onnxruntime refuses it. The
    defaults leave an encoder of ten billion parameters ten times what it needs.
    """

    file: int = _limit(2 * _GIB, "bytes of a model file; a protobuf message ends at 2 GiB")
    data: int = _limit(256 * _GIB, "bytes of all external data files together")
    nodes: int = _limit(50_000, "nodes, subgraphs included, each call of a function counted as the nodes of its body")
    functions: int = _limit(1_000, "model-local functions")
    depth: int = _limit(64, "calls and subgraphs inside each other")
    name: int = _limit(2_048, "characters of a name")
    value: int = _limit(_GIB, "bytes of one computed value on a probe, beyond those of all weights")
    values: int = _limit(64 * _GIB, "bytes of all values computed on a probe together, beyond four times all weights")
    macs: int = _limit(10**13, "multiply-accumulates on a probe")
    seconds: int = _limit(120, "seconds of one run of the model on one probe")
    memory: int = _limit(0, "bytes of memory of the command `ffc`; 0 for nine tenths of the machine's")


_active: ContextVar[Limits] = ContextVar("limits", default=Limits())  # noqa: B039 (frozen, so nothing can be shared)


def active() -> Limits:
    """Return the limits that hold here."""
    return _active.get()


@contextmanager
def applied(limits: Limits) -> Iterator[None]:
    """Let `limits` hold inside the ``with`` block."""
    token = _active.set(limits)
    try:
        yield
    finally:
        _active.reset(token)


def parse(texts: Sequence[str]) -> Limits:
    """Return the limits that hold with changes such as ``nodes=500000`` or ``value=4G``.

    Raises:
        UsageError: If a change names no limit or gives no number.
    """
    known = [each.name for each in dataclasses.fields(Limits)]
    changes: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in known:
            raise UsageError(f"no limit is called '{name}'{nearest(name, known)}")
        match = _NUMBER.fullmatch(number)
        if match is None:
            raise UsageError(f"limit '{name}' is {number!r}, expected a number such as 500000 or 4G")
        changes[name] = int(match[1]) * _UNITS[match[2]]
    return dataclasses.replace(active(), **changes)
