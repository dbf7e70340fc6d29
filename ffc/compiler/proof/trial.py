"""Trials: how far outputs would move if a pass stopped here, so that it can decide by what its changes cost."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ffc.compiler.proof.contracts import Verdict
from ffc.compiler.proof.probes import Probe
from ffc.compiler.proof.verify import Outputs, Prover, measure
from ffc.graph.dialect.function import register

__all__ = ["Trial"]


@dataclass(frozen=True, eq=False)
class Trial:
    """Measures models against the one that a pass was given, as its contract will be judged.

    Attributes:
        prover: What runs models on the inputs that contracts are checked on. The user's own rows (``--data``) are
            those that a model is required to run on.
        outputs: What the model before the pass gives on each of them.
    """

    prover: Prover
    outputs: Outputs

    @property
    def rows(self) -> int:
        """The number of rows that the user gave."""
        return sum(_rows(probe) for probe in self.prover.probes if probe.required)

    def measure(self, model: ir.Model, rows: int | None = None) -> Verdict:
        """Measure how far the outputs of `model` are from those before the pass.

        Args:
            model: What the pass would make of the model; it is not changed.
            rows: How many of the user's rows to use, in whole batches and nothing else; None for all inputs, which is
                the measurement that a budget is held against.

        Raises:
            CannotApplyError: If onnxruntime refuses the model.
        """
        places = range(len(self.outputs)) if rows is None else self._first(rows)
        probes = [self.prover.probes[place] for place in places]
        clone = model.clone()
        register(clone)
        after = self.prover.run(clone, probes=probes)
        return measure(probes, [self.outputs[place] for place in places], after, "trial")

    def _first(self, rows: int) -> list[int]:
        """Return the places of as many of the user's batches as hold `rows` rows."""
        found: list[int] = []
        for place, probe in enumerate(self.prover.probes):
            if probe.required and rows > 0:
                found.append(place)
                rows -= _rows(probe)
        return found


def _rows(probe: Probe) -> int:
    return max((len(array) for array in probe.feeds.values() if array.ndim), default=1)
