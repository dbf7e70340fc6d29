"""What a compile did, as data and as JSON: one `Step` per pass, and the `Report` of them all."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from ffc.compiler.proof.contracts import Verdict
from ffc.errors import InputError
from ffc.graph.cost import Cost

__all__ = ["FORMAT", "Report", "Step", "from_json", "to_json"]

FORMAT = "ffc.report/2"


@dataclass(frozen=True)
class Step:
    """One pass of a compile.

    Attributes:
        text: The pass with its options, as in a pipeline.
        decided: The same with what was decided on this machine in the place of what left a choice, such as ``auto``.
        needed_by: The pass that this one was inserted for, or None if it was asked for.
        changes: Number of changes by kind; empty if the pass found nothing to do.
        taken: What it changed, by name, where that is worth telling.
        notes: Its remarks.
        skipped: What it left alone and why, in words.
        cost: The model after it.
        seconds: Time of the pass and its proof.
        verdict: What the proof measured, or None where nothing changed.
    """

    text: str
    decided: str
    needed_by: str | None
    changes: dict[str, int]
    taken: list[str]
    notes: list[str]
    skipped: list[str]
    cost: Cost
    seconds: float
    verdict: Verdict | None


@dataclass(frozen=True)
class Report:
    """A whole compile; `ffc compile --report` writes it as JSON, Markdown or HTML.

    Attributes:
        source: The input file, or a word for a model in memory.
        output: The file written, or None.
        pipeline: The passes as asked for, in text.
        target: The target that was compiled for.
        before: The model as it came.
        batch: Batch size at which MACs are counted.
        length: Number of tokens at which MACs are counted.
        steps: What ran, in order.
        verdict: The result as a whole against the model as it came, or None if nothing changed.
        oldest_onnxruntime: The oldest onnxruntime that is known to run the result.
        versions: Versions of ffc and of the libraries that shape the result.
        seconds: Time from load to save.
        alone: Why the rows given are all that it was proved on; empty where probes were made too.
        remark: What is to be said of how the model runs as it came; empty where there is nothing.
        rows: What was taken of the user's rows; empty where there is nothing to say of it.
    """

    source: str
    output: str | None
    pipeline: str
    target: str
    before: Cost
    batch: int
    length: int
    steps: list[Step]
    verdict: Verdict | None
    oldest_onnxruntime: str
    versions: dict[str, str]
    seconds: float
    alone: str = field(default="", kw_only=True)
    remark: str = field(default="", kw_only=True)
    rows: str = field(default="", kw_only=True)
    format: str = field(default=FORMAT, kw_only=True)

    @property
    def decided(self) -> str:
        """The passes asked for, in text, with what was decided on this machine: it compiles to the same elsewhere."""
        return ",".join(step.decided for step in self.steps if step.needed_by is None)


def to_json(report: Report) -> str:
    """Write a report as JSON, which `from_json` reads."""
    return json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Report:
    """Read a report that `to_json` wrote.

    Raises:
        InputError: If it is not one.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"the report is not JSON: {error}") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise InputError(f"the report has format {found!r}, wanted {FORMAT!r}; write it again with this version of ffc")
    try:
        return TypeAdapter(Report).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"the report is broken at {place}: {first['msg']}") from error
