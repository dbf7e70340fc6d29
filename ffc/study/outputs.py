"""The steps that turn weights into what is served: rows to prove on, the export, the compile, and the evaluation."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ffc.errors import GateError
from ffc.progress import Tell
from ffc.recipe import compiling
from ffc.study.resources import Resources
from ffc.study.steps import Job
from ffc.study.weights import ONNX, model_of

__all__ = ["LOGITS", "REPORTS", "ROWS", "compile", "data", "evaluate", "export"]

ROWS = "rows.npz"
REPORTS = ("report.json", "report.html")
LOGITS = "logits.npz"
"""Arrays ``fp32`` and ``compiled``, float32 [validation rows, labels], and ``labels``, int64 [validation rows]."""

_BATCH = 1
"""Rows at a time in evaluations: as queries are answered, since int8 rounds a row otherwise beside others."""

_PROOF_ROWS = 64
"""Training rows that every compile is proved on, besides what the compiler makes itself."""


def data(resources: Resources, job: Job) -> Mapping[str, Any]:
    """Read the task, and write rows for the compiler to prove on."""
    task = resources.task
    arrays: dict[str, Any] = dict(resources.arrays(_PROOF_ROWS))
    np.savez(job.folder / ROWS, **arrays)
    return {
        "name": task.name,
        "metric": task.metric,
        "labels": list(task.labels),
        "train_rows": len(task.train),
        "validation_rows": len(task.validation),
        "max_length": resources.study.keys.max_length,
        "digest": resources.digest(),
    }


def export(resources: Resources, weights: str, words: str, job: Job) -> Mapping[str, Any]:
    """Export the step `weights`; `words` say in the metadata how they were made."""
    from ffc.train import export

    export.export(
        model_of(job.done[weights]).to("cpu"),
        job.folder / ONNX,
        task=resources.task,
        tokenizer=resources.tokenizer,
        provenance={"made": words, "rows": resources.digest()},
    )
    return {}


def compile(resources: Resources, exported: str, rows: str, job: Job) -> Mapping[str, Any]:
    """Compile the step `exported` as the study says, proved on rows of the task.

    A system that fails a contract, as one cut to pieces may fail that of `int8`, stays as it was exported: it shall not
    end a study of many systems.
    """
    recipe = resources.study.compiling
    model = job.done[exported].folder / ONNX
    asked = replace(
        recipe,
        model=model,
        out=job.folder / ONNX,
        data=recipe.data or (job.done[rows].folder / ROWS,),
        reports=tuple(job.folder / name for name in REPORTS),
    )
    try:
        result = compiling.compile(asked, progress=job.tell)
    except GateError as error:
        for file in model.parent.glob(f"{ONNX}*"):  # the model, and where it is large the file of its weights
            shutil.copyfile(file, job.folder / file.name)
        job.tell(f"refused, so it stays as exported: {error}")
        return {"pipeline": "", "refused": str(error)}
    return {"pipeline": result.report.pipeline, "refused": ""}


def evaluate(resources: Resources, exported: str, compiled: str, job: Job) -> Mapping[str, Any]:
    """Run both forms of a system on the validation rows in onnxruntime, and tell their sizes."""
    from ffc.graph import files
    from ffc.graph.blocks.finder import find
    from ffc.graph.cost import cost
    from ffc.pruning.importance import head_count, unit_count
    from ffc.train.evaluate import predict_onnx

    logits: dict[str, np.ndarray] = {}
    found: dict[str, Any] = {}
    for form, step in (("fp32", exported), ("compiled", compiled)):
        path = job.done[step].folder / ONNX
        logits[form] = predict_onnx(
            path,
            resources.validation,
            resources.collator,
            batch_size=_BATCH,
            progress=_named(form, job.tell),
        )
        scores = resources.score(logits[form])
        model = files.load(path)
        spent = {name: value for name, value in asdict(cost(model)).items() if name in ("parameters", "macs", "bytes")}
        found[form] = {"accuracy": scores.main, "parts": dict(scores.parts), **spent}
    layers = find(files.load(job.done[exported].folder / ONNX)).layers
    labels = np.array([row.label for row in resources.task.validation])
    np.savez(job.folder / LOGITS, labels=labels, fp32=logits["fp32"], compiled=logits["compiled"])
    return {
        **found,
        "heads": [head_count(layer) for layer in layers],
        "units": [unit_count(layer) for layer in layers],
    }


def _named(form: str, tell: Tell) -> Tell:
    """Return what tells of one form of a system."""
    return lambda line, done=0, total=0: tell(f"{form}, {line}", done, total)
