"""A compiled model in a session of onnxruntime, as a user's own program would open its file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from ffc.errors import MissingError, UsageError
from ffc.graph import files
from ffc.graph.execute import CPU

__all__ = ["session"]

_IN_MEMORY = 1 << 30
"""Bytes of weights that are handed over in memory; with more a message might pass 2 GiB, where protobuf ends."""


def session(model: ir.Model, threads: int, provider: str) -> ort.InferenceSession:
    """Open a session on a model, which is not changed.

    Args:
        model: The model.
        threads: Threads that share the work of one operator, 0 for as many as there are cores.
        provider: The provider of onnxruntime, with the CPU for what it has no kernel for.

    Raises:
        UsageError: If `threads` is no such number.
        MissingError: If the onnxruntime that is installed lacks the provider.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
        raise UsageError(f"threads is {threads!r}, wanted a whole number from 1, or 0 for as many as there are cores")
    if provider not in ort.get_available_providers():
        raise MissingError(f"onnxruntime has no {provider} here; install onnxruntime-gpu in place of onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    providers = list(dict.fromkeys([provider, CPU]))
    weights = (value.const_value for value in model.graph.initializers.values())
    if sum(tensor.nbytes for tensor in weights if tensor is not None) <= _IN_MEMORY:
        return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="ffc-", ignore_cleanup_errors=True) as folder:  # what is open may stay
        path = Path(folder) / "model.onnx"
        files.save(model, path)
        return ort.InferenceSession(str(path), options, providers=providers)
