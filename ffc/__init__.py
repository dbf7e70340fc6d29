"""FastFormers Compiler: compiles transformer encoders in ONNX into ones that cost a fraction to serve."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffc.compiler.base import Budget, Equal, EqualToMasked, Log, Pass, option
    from ffc.compiler.lowerings import Lowering
    from ffc.compiler.pipeline import Result, compile
    from ffc.compiler.report import Report
    from ffc.compiler.rules import Rule
    from ffc.errors import CannotApplyError, FfcError, GateError, InputError, MissingError, UsageError
    from ffc.graph import ops
    from ffc.graph.files import load, save
    from ffc.graph.finder import find as find_blocks

    __version__: str

__all__ = [
    "Budget",
    "CannotApplyError",
    "Equal",
    "EqualToMasked",
    "FfcError",
    "GateError",
    "InputError",
    "Log",
    "Lowering",
    "MissingError",
    "Pass",
    "Report",
    "Result",
    "Rule",
    "UsageError",
    "__version__",
    "compile",
    "find_blocks",
    "load",
    "ops",
    "option",
    "save",
]

_DISTRIBUTION = "fastformers-compiler"

_BASE, _PIPELINE, _ERRORS, _FILES = "ffc.compiler.base", "ffc.compiler.pipeline", "ffc.errors", "ffc.graph.files"

# Where each name lives. Importing ffc imports none of it, so that the command line answers at once.
_HOMES = {
    **dict.fromkeys(["Budget", "Equal", "EqualToMasked", "Log", "Pass", "option"], _BASE),
    **dict.fromkeys(["Result", "compile"], _PIPELINE),
    **dict.fromkeys(["CannotApplyError", "FfcError", "GateError", "InputError", "MissingError", "UsageError"], _ERRORS),
    **dict.fromkeys(["load", "save"], _FILES),
    "Lowering": "ffc.compiler.lowerings",
    "Report": "ffc.compiler.report",
    "Rule": "ffc.compiler.rules",
}


def _find(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "ops":
        return importlib.import_module("ffc.graph.ops")
    if name == "find_blocks":
        return importlib.import_module("ffc.graph.finder").find
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ffc' has no attribute {name!r}")


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+unknown"  # run from a checkout that is not installed


if not TYPE_CHECKING:  # type checkers would take it that every name exists

    def __getattr__(name: str) -> Any:
        value = _find(name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
