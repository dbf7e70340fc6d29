"""What a pass takes of a model and what it leaves alone, block by block, with the condition that failed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ffc.compiler import syntax
from ffc.compiler.chain import as_passes, blame, chain, check_expected, fitting, open_model, run
from ffc.compiler.library import Library
from ffc.compiler.log import Log
from ffc.compiler.passes import Pass
from ffc.compiler.survey import Finding, Tried
from ffc.errors import CannotApplyError, UsageError
from ffc.graph import files
from ffc.graph.files import ModelLike

__all__ = ["FORMAT", "Explanation", "explain", "to_json"]

FORMAT = "ffc.explain/1"


@dataclass(frozen=True)
class Explanation:
    """What one pass makes of one model.

    Attributes:
        model: The file, or a word for a model in memory.
        text: The pass with its options, as in a pipeline.
        before: The passes that ran before it, likewise.
        changes: Number of changes by kind; empty if it found nothing to do or refused.
        findings: What it looked at, in the order of the model.
        notes: Its remarks.
        refused: Why it, or a pass before it, cannot be applied as asked; None if it can.
        listed: Whether a table shows each finding, rather than those alike in one row.
    """

    model: str
    text: str
    before: list[str]
    changes: dict[str, int]
    findings: list[Finding]
    notes: list[str]
    refused: str | None
    format: str = field(default=FORMAT, kw_only=True)
    listed: bool = field(default=False, kw_only=True)


def explain(
    model: ModelLike,
    passes: str | Sequence[str | Pass] = "fuse",
    *,
    plugins: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Explanation:
    """Say block by block what a pass takes of a model, and why it leaves the rest alone.

    The passes before it run too, with what they need. Nothing is proved and nothing is written.

    Args:
        model: As `ffc.load` takes it.
        passes: The pass, or a pipeline of which the last pass is explained.
        plugins: Files with passes, ``file.py`` or ``file.py:Name``.
        progress: Called with a line at every step.

    Raises:
        UsageError: If the pipeline is malformed.
        InputError: If the model, or a file that a pass reads, is missing or broken.
    """
    tell = progress or (lambda line: None)
    library = Library.default(plugins)
    asked = as_passes(passes, library)
    if not asked:
        raise UsageError("no pass to explain; name one, such as fuse")
    source = files.name_of(model)
    text = syntax.unparse(asked[-1:])
    before: list[str] = []
    try:
        links = chain(asked, library)
        stage = open_model(model)
        *earlier, (last, _) = fitting(links, stage)
        for item, _ in earlier:
            tell(f"{item.name} ...")
            with blame(item):
                stage = run(item, stage, Log())
            before.append(syntax.unparse([item]))
    except CannotApplyError as error:
        return Explanation(source, text, before, {}, [], [], str(error))
    tell(f"{last.name} ...")
    tried = _try(last, stage)
    with blame(last):
        survey = last.survey(tried)
    log, findings = tried.log, [*survey.findings]
    return Explanation(source, text, before, log.done, findings, log.notes, survey.refused, listed=survey.listed)


def _try(item: Pass, model: ir.Model) -> Tried:
    """Run a pass and keep what it said, even where it refuses."""
    log = Log()
    after, refused = model, None
    try:
        with blame(item):
            after = run(item, model, log)
            check_expected(item, log)
    except CannotApplyError as error:
        refused = str(error)
        log = Log(misses=log.misses)
    return Tried(model, after, log, refused)


def to_json(explanation: Explanation) -> str:
    """Write an explanation as JSON."""
    found = dataclasses.asdict(explanation)
    del found["listed"]  # is for tables alone
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
