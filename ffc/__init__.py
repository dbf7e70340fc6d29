"""FastFormers Compiler: compiles transformer encoders in ONNX into ones that cost a fraction to serve."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffc import recipe
    from ffc.ci.diff.diff import Diff, diff
    from ffc.ci.lock.check import Check, check, lock
    from ffc.ci.lock.policy import Policy
    from ffc.ci.reduce import Reduction, reduce
    from ffc.compiler import rules
    from ffc.compiler.explain.blocks import find_blocks
    from ffc.compiler.explain.explanation import Explanation, explain
    from ffc.compiler.log import Log
    from ffc.compiler.matcher import Match
    from ffc.compiler.passes import Pass, option
    from ffc.compiler.pipeline import Result
    from ffc.compiler.proof.contracts import Budget, Equal, EqualToMasked, KnownRows, ModelFrom
    from ffc.compiler.reports.report import Report
    from ffc.compiler.rules import Rule, Sample, rule
    from ffc.compiler.survey import Finding, Survey, Tried
    from ffc.errors import CannotApplyError, FfcError, GateError, InputError, MissingError, UsageError
    from ffc.folders import compile
    from ffc.graph.dialect import ops
    from ffc.graph.dialect.edit import Editor, constant
    from ffc.graph.dialect.function import Function, called, function
    from ffc.graph.dialect.trace import Op, Tensor
    from ffc.graph.files import load, save
    from ffc.rows.text_rows import TextRows

    __version__: str

__all__ = [
    "Budget",
    "CannotApplyError",
    "Check",
    "Diff",
    "Editor",
    "Equal",
    "EqualToMasked",
    "Explanation",
    "FfcError",
    "Finding",
    "Function",
    "GateError",
    "InputError",
    "KnownRows",
    "Log",
    "Match",
    "MissingError",
    "ModelFrom",
    "Op",
    "Pass",
    "Policy",
    "Reduction",
    "Report",
    "Result",
    "Rule",
    "Sample",
    "Survey",
    "Tensor",
    "TextRows",
    "Tried",
    "UsageError",
    "__version__",
    "called",
    "check",
    "compile",
    "constant",
    "diff",
    "explain",
    "find_blocks",
    "function",
    "load",
    "lock",
    "ops",
    "option",
    "recipe",
    "reduce",
    "rule",
    "rules",
    "save",
]

# Where each name lives. Importing ffc imports none of it, so that the command line answers at once.
_HOMES = {
    "ffc.ci.diff.diff": ["Diff", "diff"],
    "ffc.ci.lock.check": ["Check", "check", "lock"],
    "ffc.ci.lock.policy": ["Policy"],
    "ffc.ci.reduce": ["Reduction", "reduce"],
    "ffc.compiler.log": ["Log"],
    "ffc.compiler.matcher": ["Match"],
    "ffc.compiler.passes": ["Pass", "option"],
    "ffc.compiler.proof.contracts": ["Budget", "Equal", "EqualToMasked", "KnownRows", "ModelFrom"],
    "ffc.compiler.explain.blocks": ["find_blocks"],
    "ffc.compiler.explain.explanation": ["Explanation", "explain"],
    "ffc.compiler.pipeline": ["Result"],
    "ffc.compiler.reports.report": ["Report"],
    "ffc.compiler.rules": ["Rule", "Sample", "rule"],
    "ffc.compiler.survey": ["Finding", "Survey", "Tried"],
    "ffc.errors": ["CannotApplyError", "FfcError", "GateError", "InputError", "MissingError", "UsageError"],
    "ffc.folders": ["compile"],
    "ffc.graph.dialect.edit": ["Editor", "constant"],
    "ffc.graph.dialect.function": ["Function", "called", "function"],
    "ffc.graph.dialect.trace": ["Op", "Tensor"],
    "ffc.graph.files": ["load", "save"],
    "ffc.rows.text_rows": ["TextRows"],
}
_MODULES = {"ops": "ffc.graph.dialect.ops", "recipe": "ffc.recipe", "rules": "ffc.compiler.rules"}


def _find(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("ffc.version").version()
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'ffc' has no attribute {name!r}")


if not TYPE_CHECKING:  # type checkers would take it that every name exists

    def __getattr__(name: str) -> Any:
        value = _find(name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
