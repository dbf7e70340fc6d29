"""Telling a broken model from a bug: when something unforeseen fails, is what it was given valid at all?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import onnx

from ffc.errors import FfcError, InputError, one_line
from ffc.graph import files
from ffc.graph.files import ModelLike

__all__ = ["blames_input"]

P = ParamSpec("P")
R = TypeVar("R")


def blames_input(work: Callable[P, R]) -> Callable[P, R]:
    """Let errors that nobody foresaw be the model's where onnx's checker finds the model at fault.

    The checker is not asked first, for it refuses models that run: operators that onnxruntime has under older opsets
    than the standard does, for one. `work` takes a model first.
    """

    @functools.wraps(work)
    def wrapped(*args: P.args, **options: P.kwargs) -> R:
        try:
            return work(*args, **options)
        except (FfcError, MemoryError):
            raise
        except Exception as error:
            model: Any = args[0] if args else options.get("model")
            again = files.in_memory(model) is None and not hasattr(model, "read")  # a stream is read once
            reason = _fault(model) if again else None
            if reason is None:
                raise
            found = f"the model is not valid ONNX, {reason}"
            raise InputError(f"cannot compile {files.name_of(model)}: {found}; export it again") from error

    return wrapped


def _fault(model: ModelLike) -> str | None:
    """Return what onnx's checker has against a serialised model, None if nothing."""
    try:
        proto, sizes = files.skeleton(model)
        onnx.checker.check_model(proto)
        for tensor in proto.graph.initializer:
            tensor.dims[:] = sizes.get(tensor.name, tensor.dims)
        onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    except Exception as error:  # the checker, shape inference and protobuf raise what they like
        return one_line(str(error) or type(error).__name__, 300)
    return None
