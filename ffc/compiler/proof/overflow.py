"""Naming what half precision cannot hold: the first value of a model that leaves its range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.probes import Probe
from ffc.graph.dialect.half import LARGEST, Rounding, rounded, roundings
from ffc.graph.execute import Runner

__all__ = ["find"]


def find(model: ir.Model, probes: Sequence[Probe]) -> str | None:
    """Say which value of `model` is the first, in the order of execution, to leave the range of half precision.

    What it says: how far and on which probe, and what to do; None if nothing does.
    """
    shown = rounded(model)
    places = list(roundings(shown))
    outputs = [value for value in dict.fromkeys(place.exact for place in places) if not value.is_graph_output()]
    shown.graph.outputs.extend(outputs)
    runner = Runner(shown)
    worst: tuple[int, float, Probe] | None = None
    for probe in probes:
        values = runner.run(probe.feeds)
        for index, place in enumerate(places if worst is None else places[: worst[0]]):
            largest = _largest(values[str(place.exact.name)])
            if largest > LARGEST:
                worst = index, largest, probe
                break
    return None if worst is None else _said(places[worst[0]], worst[1], worst[2])


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array[np.isfinite(array)], dtype=np.float64).max(initial=0))


def _said(place: Rounding, largest: float, probe: Probe) -> str:
    names = ",".join(place.parts)
    return (
        f"{place.what} reaches {largest:.3g} on probe '{probe.name}', and half ends at {LARGEST:g}; "
        f"fp16{{skip={names}}} keeps that in float32"
    )
