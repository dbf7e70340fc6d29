"""What the property tests share: how many cases to try, how a draft is compiled, and what feeds a result."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from hypothesis import HealthCheck, settings

from ffc.compiler.log import Log
from ffc.graph.tidy import tidy
from tests.graphs import LIBRARY, Feeds, masks

TIMES = float(os.environ.get("FFC_PROPERTY_RUNS", "0"))
"""How many times the usual number of cases to try, drawn anew each time; 0 for the usual ones, the same each time."""

SIZES = ((1, 1), (2, 3), (3, 6))
"""Batch sizes and lengths of what is run where dimensions are dynamic."""


def cases(count: int) -> settings:
    """Return settings for `count` cases."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(
        max_examples=max(1, int(count * (TIMES or 1))), derandomize=not TIMES, deadline=None, database=None, suppress_health_check=slow
    )


def fused(model: ir.Model) -> tuple[ir.Model, Log]:
    """Return `model` as `fuse` leaves it, and the log of that pass."""
    model, log = model.clone(), Log()
    for name in ("opset", "clean", "fuse"):
        LIBRARY[name]().run(model, log)
    return tidy(model), log


class Session:
    """A model in onnxruntime, on one thread and as it is written."""

    def __init__(self, model: ir.Model) -> None:
        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return dict(zip(self._outputs, self._session.run(None, dict(feeds)), strict=True))


def rows(model: ir.Model) -> Iterator[Feeds]:
    """Yield inputs for `model`: masks of every kind at several batch sizes and lengths, or at those that it fixes."""
    x = next(value for value in model.graph.inputs if value.name == "x")
    assert x.shape is not None
    batch, tokens = x.shape[0], x.shape[1]
    sizes = [(batch, tokens)] if isinstance(batch, int) and isinstance(tokens, int) else SIZES
    for rows_, length in sizes:
        for index, keep in enumerate(masks(rows_, length).values()):
            yield {str(value.name): _fill(value, rows_, length, keep, index) for value in model.graph.inputs}


def _fill(value: ir.Value, batch: int, length: int, keep: np.ndarray, seed: int) -> np.ndarray:
    if value.name == "keep":
        return keep
    random = np.random.default_rng([seed, len(str(value.name))])
    assert value.shape is not None
    found = {"batch": batch, "seq": length}
    array = random.standard_normal([d if isinstance(d, int) else found[str(d)] for d in value.shape]).astype(np.float32)
    if value.name == "added" and seed % 2:
        array[np.broadcast_to(keep[:, None, None] == 0, array.shape)] = -10000
    return array


def upstream(value: ir.Value) -> Counter[str]:
    """Return the operators that compute `value`, calls with their domain."""
    seen, pending = set[ir.Node](), [value]
    while pending:
        node = pending.pop().producer()
        if node is not None and node not in seen:
            seen.add(node)
            pending.extend(each for each in node.inputs if each is not None)
    return Counter(f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in seen)


def assert_right(before: ir.Model, after: ir.Model, tolerance: float = 1e-4) -> None:
    """Check that every number that `before` gives, `after` gives too, wherever it is one."""
    one, other = Session(before), Session(after)
    for feeds in rows(before):
        expected, found = one(feeds), other(feeds)
        assert list(expected) == list(found)
        for name, array in expected.items():
            assert array.shape == found[name].shape and array.dtype == found[name].dtype, name
            number = np.isfinite(array)
            assert np.isfinite(found[name][number]).all(), name
            scale = np.abs(array[number]).max(initial=1e-6)
            assert np.abs(array[number] - found[name][number]).max(initial=0) <= tolerance * scale, name
