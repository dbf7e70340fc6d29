"""What a pass is: its name, its options, its contract, and what it does to a model."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import onnx_ir as ir

from ffc.compiler.log import Log
from ffc.compiler.proof.contracts import Contract, Equal
from ffc.compiler.rules import Rule
from ffc.compiler.survey import Survey, Tried, general
from ffc.errors import UsageError
from ffc.graph.execute import CPU
from ffc.settings.setting import Wanted
from ffc.settings.wanted import ANY, FROM_0

__all__ = ["Pass", "check_values", "option"]


def option(text: str, *, default: Any = dataclasses.MISSING, wanted: Wanted = ANY, file: bool = False) -> Any:
    """Declare a field of a pass as an option.

    Args:
        text: What it does, for help.
        default: Its value when not given; without one the option is required.
        wanted: What a value must be besides of its type, such as those of `ffc.settings.wanted`. It is checked when a
            pipeline is read.
        file: Whether it names a file that the pass reads, which must be there before the first pass runs.
    """
    return field(default=default, metadata={"help": text, "wanted": wanted, "file": file}, kw_only=True)


@dataclass(frozen=True)
class Pass(ABC):
    """One named step of a compile. Subclasses are frozen dataclasses whose fields, made by `option`, are their options.

    Attributes:
        name: How pipelines call it, in kebab-case.
        contract: What it promises about the outputs; a pass whose budget is an option computes it in a property.
        needs: Passes that must have run before; the run loop inserts those that have not.
        rounds: Whether it rounds numbers, as `int8` and `fp16` do.
        before_rounding: Whether it must run before passes that round, and is refused after them.
        any_opset: Whether it takes models of any opset, and so may run before `opset`, which begins a compile else.
        rules: The rules it applies, for `ffc passes` and for the test that proves every rule.
    """

    name: ClassVar[str]
    needs: ClassVar[Sequence[str]] = ()
    rounds: ClassVar[bool] = False
    before_rounding: ClassVar[bool] = False
    any_opset: ClassVar[bool] = False
    rules: ClassVar[Sequence[Rule]] = ()

    expect: int | None = option(
        "number of changes this pass must make; any other number is an error", default=None, wanted=FROM_0
    )

    @property
    def contract(self) -> Contract:
        """What the pass promises about the outputs; subclasses may state it as a plain class attribute."""
        return Equal()

    @property
    def provider(self) -> str:
        """The provider of onnxruntime that the result is made for, such as ``CUDAExecutionProvider``."""
        return CPU

    def fits(self, model: ir.Model, target: str) -> bool:
        """Whether a model that is compiled for `target` wants it; where it does not, no other pass needs it either."""
        return True

    @abstractmethod
    def run(self, model: ir.Model, log: Log) -> None:
        """Change `model` in place and say in `log` what was done and what was left alone.

        Args:
            model: A clone that is this pass's own, at opset 23, or later if it uses what that lacks, unless the pass
                takes any.
            log: Counts, remarks and misses; a pass that counts nothing is taken to have changed nothing.

        Raises:
            CannotApplyError: If the pass cannot be applied as asked; the model is then thrown away.
        """

    def survey(self, tried: Tried) -> Survey:
        """Say for `ffc explain` what the pass takes of a model, and which condition failed for the rest.

        By default that is what `run` logged, and the nodes that one of `rules` nearly matched.

        Args:
            tried: What came of running the pass. A remark that is added to its log is shown.
        """
        return Survey(general(self.rules, tried), tried.refused)


def check_values(item: Pass) -> None:
    """Refuse options that are not what is wanted of them.

    Raises:
        UsageError: If one is so.
    """
    for each in dataclasses.fields(item):
        value, wanted = getattr(item, each.name), each.metadata.get("wanted", ANY)
        if value is not None and not wanted.fits(value):
            raise UsageError(f"option '{each.name}' of pass '{item.name}' is {value!r}; wanted: {wanted.words}")
