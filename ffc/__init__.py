"""FastFormers Compiler: compiles transformer encoders in ONNX into ones that cost a fraction to serve."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffc import recipe
    from ffc.compiler import rules
    from ffc.compiler.base import Budget, Equal, EqualToMasked, Log, Pass, option
    from ffc.compiler.explain import Explanation, explain
    from ffc.compiler.lowerings import Lowering
    from ffc.compiler.pipeline import Result, compile
    from ffc.compiler.report import Report
    from ffc.compiler.rules import Match, Rule, Sample
    from ffc.errors import CannotApplyError, FfcError, GateError, InputError, MissingError, UsageError
    from ffc.graph import ops
    from ffc.graph.edit import Editor, constant
    from ffc.graph.files import load, save
    from ffc.graph.finder import find as find_blocks

    __version__: str

__all__ = [
    "Budget",
    "CannotApplyError",
    "Editor",
    "Equal",
    "EqualToMasked",
    "Explanation",
    "FfcError",
    "GateError",
    "InputError",
    "Log",
    "Lowering",
    "Match",
    "MissingError",
    "Pass",
    "Report",
    "Result",
    "Rule",
    "Sample",
    "UsageError",
    "__version__",
    "compile",
    "constant",
    "explain",
    "find_blocks",
    "load",
    "ops",
    "option",
    "recipe",
    "rules",
    "save",
]

_DISTRIBUTION = "fastformers-compiler"

# Where each name lives. Importing ffc imports none of it, so that the command line answers at once.
_HOMES = {
    "ffc.compiler.base": ["Budget", "Equal", "EqualToMasked", "Log", "Pass", "option"],
    "ffc.compiler.explain": ["Explanation", "explain"],
    "ffc.compiler.lowerings": ["Lowering"],
    "ffc.compiler.pipeline": ["Result", "compile"],
    "ffc.compiler.report": ["Report"],
    "ffc.compiler.rules": ["Match", "Rule", "Sample"],
    "ffc.errors": ["CannotApplyError", "FfcError", "GateError", "InputError", "MissingError", "UsageError"],
    "ffc.graph.edit": ["Editor", "constant"],
    "ffc.graph.files": ["load", "save"],
}
_MODULES = {"ops": "ffc.graph.ops", "recipe": "ffc.recipe", "rules": "ffc.compiler.rules"}


def _find(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "find_blocks":
        return importlib.import_module("ffc.graph.finder").find
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
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
