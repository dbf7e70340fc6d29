"""Compiles of one model that share their steps, for tests of many pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import ffc
from ffc.compiler import pipeline
from ffc.compiler.syntax import unparse

_STEP, _OPENED = pipeline._step, pipeline.opened


@contextmanager
def shared_steps() -> Iterator[None]:
    """Run and prove a step once for all compiles inside that come to it; they must be of the same model.

    A step is told by its pass and options, and by the stage it starts from: by the outputs of that on the probes, which
    are the same object only where all steps before were shared too.
    """
    steps: dict[tuple[int, str], Any] = {}
    provers: list[Any] = []
    kept: list[Any] = []  # so that no identity is given twice

    def opened(model: Any, *rest: Any) -> Any:
        if not provers:
            provers.append(_OPENED(model, *rest))
        return provers[0]

    def step(item: ffc.Pass, needed_by: str | None, stage: Any, *rest: Any) -> Any:
        key = (id(stage.outputs), unparse([item]))
        kept.append(stage)
        if key not in steps:
            try:
                steps[key] = _STEP(item, needed_by, stage, *rest)
            except ffc.FfcError as error:
                steps[key] = error
        if isinstance(steps[key], ffc.FfcError):
            raise steps[key]
        return steps[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_step", step)
        patch.setattr(pipeline, "opened", opened)
        yield


@contextmanager
def unshared_steps() -> Iterator[None]:
    """Compile as usual inside `shared_steps`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_step", _STEP)
        patch.setattr(pipeline, "opened", _OPENED)
        yield
