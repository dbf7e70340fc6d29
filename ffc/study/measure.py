"""How fast the systems of a study answer: PyTorch and ONNX side by side, on the same rows, on one thread."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ffc.progress import Tell
from ffc.runtime.latency import Answer, Measurement, latency, sample
from ffc.study.report.summary import COMPILED, EAGER, FP32, PADDED, Measurements, Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ffc.train.encoding import Rows

__all__ = ["measure"]


def measure(
    run: Run,
    folder: Path,
    rows: Rows,
    tokenizer: PreTrainedTokenizerFast,
    *,
    queries: int,
    rounds: int,
    progress: Tell,
) -> Measurements:
    """Time all systems of a run, its files in `folder`, on a sample of its validation rows, making tokens left out.

    The teacher is served in all four ways, students without padding, what is pruned in the two of ONNX. Prices are 0.

    Raises:
        UsageError: If there is no row or no round.
    """
    from ffc.train.encoding import Collator
    from ffc.train.models.loading import load
    from ffc.train.queries import onnx_answer, torch_answer

    chosen = sample(len(rows), queries)
    short, padded = Collator(tokenizer), Collator(tokenizer, pad_to=rows.max_length)
    answers: dict[tuple[str, str], Answer] = {}
    for system in run.systems:
        if system.kind != "pruned":
            model = load(folder / system.weights)
            answers[system.name, EAGER] = torch_answer(model, rows, short, chosen)
            if system.kind == "teacher":
                answers[system.name, PADDED] = torch_answer(model, rows, padded, chosen)
        for way, form in ((FP32, system.fp32), (COMPILED, system.compiled)):
            answers[system.name, way] = onnx_answer(folder / form.file, rows, short, chosen)
    found: dict[str, dict[str, Measurement]] = {}
    for (name, way), taken in latency(answers, len(chosen), rounds=rounds, progress=progress).items():
        found.setdefault(name, {})[way] = taken
    return Measurements(len(chosen), rows.max_length, 0.0, found)
