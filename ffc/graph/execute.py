"""Running a model that is in memory with onnxruntime, its weights handed over without a copy."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from ffc import limits
from ffc.errors import CannotApplyError, InputError

__all__ = ["CPU", "CUDA", "Runner", "cuda_at_hand", "light_proto"]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
"""Providers of onnxruntime, by the name it gives them."""

# What a provider is told: float32 products shall be that, not TF32.
_PROVIDER_OPTIONS = {CPU: {}, CUDA: {"use_tf32": "0"}}

_EMBEDDED_BYTES = 1024
"""Weights up to this size travel inside the protobuf; shape computations need theirs at load."""

_PLACE = "weights-in-memory"


def light_proto(model: ir.Model) -> tuple[bytes, dict[str, np.ndarray]]:
    """Serialise `model` with its large weights left out.

    Returns: The protobuf, in which each large initializer points to external data that does not exist, and those
        initializers by name.
    """
    kept: list[ir.Value] = []
    weights: dict[str, np.ndarray] = {}
    for name, value in model.graph.initializers.items():
        if not value.uses() and not value.is_graph_output():
            continue  # onnxruntime drops what nothing reads, and then misses it
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= _EMBEDDED_BYTES or tensor.dtype == ir.DataType.STRING:
            kept.append(value)
            continue
        weights[name] = np.ascontiguousarray(tensor.numpy())
        kept.append(_without_data(value, tensor))
    graph = model.graph
    view: Any = ir.GraphView(
        graph.inputs, graph.outputs, nodes=graph, initializers=kept, opset_imports=graph.opset_imports, name=graph.name
    )
    proto = ir.to_proto(ir.Model(view, ir_version=model.ir_version, functions=[*model.functions.values()]))
    for node in proto.graph.node:
        del node.metadata_props[:]
    return proto.SerializeToString(), weights


def _without_data(value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
    """Return a copy of an initializer whose data are said to lie in a file that does not exist."""
    shape, name = ir.Shape(tensor.shape.numpy()), value.name or ""
    elsewhere = ir.ExternalTensor(_PLACE, 0, tensor.nbytes, tensor.dtype, shape=shape, name=name, base_dir="")
    copy = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=elsewhere)
    copy.meta.update(value.meta)
    return copy


def cuda_at_hand() -> bool:
    """Whether the onnxruntime that is installed has a CUDA provider."""
    return CUDA in ort.get_available_providers()


class Runner:
    """An onnxruntime session over a model in memory, for proofs: one provider, quiet, weights not repacked."""

    def __init__(self, model: ir.Model, *, threads: int = 0, optimise: bool = True, provider: str = CPU) -> None:
        """Create the session.

        Args:
            model: The model; it is not changed.
            threads: Intra-op threads, 0 for one per core.
            optimise: Whether onnxruntime may rewrite the graph as it does for users.
            provider: `CPU`, or `CUDA` with the CPU for what it has no kernel for.

        Raises:
            CannotApplyError: If onnxruntime refuses the model.
            InputError: If it takes or gives anything but tensors.
        """
        _check_tensors(model)
        proto, weights = light_proto(model)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
        self._weights = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), self._weights)
        for name, weight in zip(weights, self._weights, strict=True):
            options.add_initializer(name, weight)  # used in place; the line above alone makes a copy in the session
        try:
            providers = dict.fromkeys([provider, CPU])
            told = [_PROVIDER_OPTIONS[name] for name in providers]
            self._session = ort.InferenceSession(proto, options, providers=list(providers), provider_options=told)
        except Exception as error:  # onnxruntime raises its own hierarchy, all outside Python's
            raise CannotApplyError(f"onnxruntime refuses the model: {_one_line(error)}{_advice(error)}") from error
        self.outputs = [value.name for value in self._session.get_outputs()]
        _return_memory()

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run on `feeds` and return every graph output by name.

        Raises:
            CannotApplyError: If onnxruntime fails on these inputs.
            InputError: If it runs beyond the limit on seconds.
        """
        options, seconds = ort.RunOptions(), limits.active().seconds
        options.log_severity_level = 4
        watch = threading.Timer(seconds, setattr, (options, "terminate", True))
        watch.daemon = True
        watch.start()
        try:
            results = self._session.run(None, dict(feeds), options)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
            if options.terminate:
                found = f"the model runs longer than {seconds} s, the limit 'seconds', on inputs {shapes}"
                raise InputError(f"{found}; raise the limit if need be") from error
            raise CannotApplyError(f"onnxruntime fails on inputs {shapes}: {_one_line(error)}") from error
        finally:
            watch.cancel()
        return dict(zip(self.outputs, results, strict=True))


def _return_memory() -> None:
    """Give memory back that was freed; a session copies weights while it is made, and the C library keeps the room."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # not every C library has it
            ctypes.CDLL(None).malloc_trim(0)


def _check_tensors(model: ir.Model) -> None:
    kinds = {
        ir.SequenceType: "a sequence",
        ir.OptionalType: "an optional value",
        ir.SparseTensorType: "a sparse tensor",
    }
    for what, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            if value.type is not None and not isinstance(value.type, ir.TensorType):
                kind = kinds.get(type(value.type), "a map")
                raise InputError(f"{what} '{value.name}' is {kind}; only tensors can be proved")


def _one_line(error: Exception) -> str:
    """Return what onnxruntime says in one line, without codes and places in its own source."""
    text = _CODE.sub("", " ".join(str(error).split()))
    failed = _FAILED.fullmatch(text)
    operator, name, said = failed.groups() if failed else ("", "", text)
    where = f"{operator} '{name}': " if failed else ""
    return f"{where}{_SOURCE.sub('', said)}"[:300]


def _advice(error: Exception) -> str:
    """Say what to do about a model that is newer than onnxruntime."""
    return f"; this is onnxruntime {ort.__version__}, install a newer one" if _NEWER.search(str(error)) else ""


_NEWER = re.compile(r"Could not find an implementation for \w+\(\d+\)|Current official support for domain .* is till")
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_FAILED = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'(.*?)' Status Message: (.*)")
_SOURCE = re.compile(r"^/\S+:\d+ .*?\) (?:.* was false\. (?=\S))?")
"""A file, a line and a function, and a condition where a sentence comes after it."""
