"""A case: a model and its passes, what it weighs, when two of them are one, and what came of the first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ffc.ci.reduce.cases.failure import Failure
from ffc.compiler import syntax
from ffc.compiler.passes import Pass
from ffc.graph import notation
from ffc.graph.text import text

__all__ = ["Case", "Reduction", "digest"]


@dataclass(frozen=True, eq=False)
class Case:
    """A model and a pipeline.

    Attributes:
        model: The model.
        passes: The passes asked for.
    """

    model: ir.Model
    passes: tuple[Pass, ...]

    @property
    def nodes(self) -> int:
        """The number of nodes of the main graph."""
        return len(self.model.graph)

    @property
    def weights(self) -> int:
        """The bytes of all initializers."""
        return sum(tensor.nbytes for _, tensor in _tensors(self.model))

    @property
    def pipeline(self) -> str:
        """The passes as text."""
        return syntax.unparse(self.passes)


@dataclass(frozen=True, eq=False)
class Reduction:
    """A model that is as small as one could be found, and goes wrong as a larger one does.

    Attributes:
        model: The model.
        passes: The passes that show it; empty where the condition is not about passes.
        pipeline: Those as text.
        failure: How it goes wrong.
        nodes_before: The number of nodes of the model as it came.
        nodes: The number of nodes of this one.
        weights_before: The bytes of weights of the model as it came.
        weights: The bytes of weights of this one.
        tried: How many models and pipelines were run.
        seconds: How long that took.
        finished: Whether nothing smaller was left to try; otherwise the time was over.
        reproduced: Whether the reproducer failed in a process of its own; None where none was written, or where that
            cannot be told since the condition is a function.
    """

    model: ir.Model
    passes: tuple[Pass, ...]
    pipeline: str
    failure: Failure
    nodes_before: int
    nodes: int
    weights_before: int
    weights: int
    tried: int
    seconds: float
    finished: bool
    reproduced: bool | None = None


def digest(case: Case, known: dict[int, tuple[ir.TensorProtocol, str]]) -> str:
    """Return a digest of a graph as its canonical text tells it, of its weights, and of the pipeline.

    `known` remembers the digests of tensors, which cases share.
    """
    found = hashlib.sha256(f"{case.pipeline}\n{text(case.model, weights=False)}".encode())
    for name, tensor in sorted(_tensors(case.model), key=lambda pair: pair[0]):
        if id(tensor) not in known:
            known[id(tensor)] = tensor, notation.digest(tensor)  # as long as it is held, no other has its id
        found.update(f"{name} {known[id(tensor)][1]}\n".encode())
    return found.hexdigest()


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            yield name, value.const_value
