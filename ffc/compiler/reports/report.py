"""What a compile did, as data: one `Step` per pass, and the `Report` of them all."""

from __future__ import annotations

from dataclasses import dataclass, field

from ffc.graph.cost import Cost

__all__ = ["FORMAT", "Report", "Step", "Verdict"]

FORMAT = "ffc.report/1"


@dataclass(frozen=True)
class Verdict:
    """What the proof of one step measured, over all probes and outputs.

    Attributes:
        contract: What was promised, in words.
        difference: Largest difference, relative to the scale of its output.
        cosine: Least mean cosine of an output's vectors.
        agreement: Share of rows of two-dimensional outputs whose largest entry stayed the largest, or None without
            such outputs.
        probes: Number of inputs compared.
        worst: The probe and output with the largest difference.
    """

    contract: str
    difference: float
    cosine: float
    agreement: float | None
    probes: int
    worst: str


@dataclass(frozen=True)
class Step:
    """One pass of a compile.

    Attributes:
        text: The pass with its options, as in a pipeline.
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
        oldest_onnxruntime: The oldest onnxruntime that runs the result.
        versions: Versions of ffc and of the libraries that shape the result.
        seconds: Time from load to save.
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
    format: str = field(default=FORMAT, kw_only=True)
