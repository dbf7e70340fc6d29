"""Export of a trained model to ONNX in the form that the compiler reads best, checked against torch by numbers."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import nn

from ffc.errors import CannotApplyError, one_line
from ffc.graph import files
from ffc.train.checks import check_vocabulary
from ffc.train.heads import classifies, does, outputs
from ffc.train.models.blueprint import labels
from ffc.train.models.digest import digest
from ffc.train.models.pretrained import takes
from ffc.train.models.silence import silenced
from ffc.train.parity import check, example
from ffc.train.tasks.base import Task
from ffc.version import version

__all__ = ["export", "exported", "inputs"]

_TYPES = "token_type_ids"
_BATCH, _LENGTH = 2, 9  # any but 0 and 1, for which torch would write a graph of its own


def export(
    model: nn.Module,
    path: Path,
    *,
    task: Task | None = None,
    tokenizer: Any = None,
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """Write the graph that `exported` returns as one ONNX file.

    Args:
        model: As for `exported`, as are `task`, `tokenizer` and `provenance`.
        path: Where the file goes, whole or not at all; an existing one is replaced.
        task: What the model was trained for.
        tokenizer: What makes its inputs.
        provenance: What else to note.

    Returns:
        `path`.

    Raises:
        UsageError: If the file cannot be written; and what `exported` raises, then nothing is written.
    """
    path = Path(path)
    graph = exported(model, task=task, tokenizer=tokenizer, provenance=provenance)
    with contextlib.suppress(OSError):  # what is wrong with the folder, `save` says
        path.parent.mkdir(parents=True, exist_ok=True)
    files.save(graph, path)
    return path


def exported(
    model: nn.Module,
    *,
    task: Task | None = None,
    tokenizer: Any = None,
    provenance: Mapping[str, str] | None = None,
) -> ir.Model:
    """Return a model as a graph with dynamic batch and length, once it was shown to give what torch gives.

    The graph takes int64 `input_ids` and `attention_mask` [batch, length] and what else `inputs` names. What it gives,
    in float32, `ffc.train.heads` tells. Its metadata have `ffc.task`, `ffc.labels` (a JSON list) where it classifies,
    and `ffc.provenance` (JSON: versions, hash of the weights).

    Args:
        model: A model of transformers with a head or without, a `SpanClassifier` or a `SentenceModel`, pruned or not;
            it is not changed.
        task: What the model was trained for; without it, what its config says, or its class.
        tokenizer: What makes its inputs.
        provenance: What else to note, such as the data and the seed.

    Raises:
        CannotApplyError: If torch cannot export the model or onnxruntime cannot run the result.
        GateError: If the two differ.
        InputError: If the tokenizer makes ids that the model has no embedding for.
    """
    if tokenizer is not None:
        check_vocabulary(model, tokenizer)
    frozen = copy.deepcopy(model).float().cpu().eval().requires_grad_(False)
    names = inputs(model, task, tokenizer)
    if _TYPES not in names:
        _fold_types(frozen)
    graph = _traced(frozen, names)
    # Types may be folded in `frozen`, so what the graph is held to is the model itself.
    check(copy.deepcopy(model).float().cpu().eval(), graph, names)
    graph.metadata_props.update(_metadata(model, task, provenance or {}))
    return graph


def inputs(model: nn.Module, task: Task | None = None, tokenizer: Any = None) -> tuple[str, ...]:
    """Return the inputs that the exported model takes, in order.

    Types of tokens tell the two texts of a pair apart. They are constant, and so no input, where the tokenizer does not
    make them or no row of the task has a second text.
    """
    untold = tokenizer is not None and _TYPES not in tokenizer.model_input_names
    rows = () if task is None else (*task.train, *task.validation)
    single = bool(rows) and all(row.second is None for row in rows)
    return tuple(name for name in takes(model) if name != _TYPES or not (untold or single))


class _NoTypes(nn.Module):
    """In place of an embedding of types that was folded away: adds nothing, and the exporter leaves it out."""

    def forward(self, _: torch.Tensor) -> float:
        """Return what to add to the embedding of each token."""
        return 0.0


def _fold_types(model: nn.Module) -> None:
    """Add the embedding of type 0 to that of every position, in place: all tokens are of that type."""
    for module in list(model.modules()):
        types, positions = (getattr(module, f"{kind}_embeddings", None) for kind in ("token_type", "position"))
        if isinstance(types, nn.Embedding) and isinstance(positions, nn.Embedding):
            positions.weight.add_(types.weight[0])
            module.token_type_embeddings = _NoTypes()


def _traced(model: nn.Module, names: Sequence[str]) -> ir.Model:
    """Return the graph that torch's exporter makes, with the outputs of its head alone: what a pooler gives goes."""
    config: Any = model.config
    feeds = example(model, names, _BATCH, _LENGTH)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    axes = {name: {0: batch} if name == "spans" else {0: batch, 1: length} for name in names}
    kept = outputs(model, feeds)
    try:
        with silenced():
            program = torch.onnx.export(
                model,
                kwargs=feeds,
                dynamic_shapes=axes,
                output_names=kept,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # what the exporter raises has no base of its own
        why = one_line(str(error.__cause__ or error), 300)  # on top it says how to debug torch
        raise CannotApplyError(f"torch cannot export this {config.model_type} model: {why}") from error
    assert program is not None  # as it is with dynamo
    graph: ir.Model = program.model
    del graph.graph.outputs[len(kept) :]
    RemoveUnusedNodesPass()(graph)
    return graph


def _metadata(model: nn.Module, task: Task | None, more: Mapping[str, str]) -> dict[str, str]:
    config: Any = model.config
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    told = {"ffc": version(), **versions, "model": config.model_type, "weights": digest(model), **more}
    found = {"ffc.provenance": json.dumps(told, sort_keys=True)}
    name = task.name if task else getattr(config, "ffc_task", "")
    if name or does(model):
        found["ffc.task"] = name or does(model)
    if name or classifies(model):
        found["ffc.labels"] = json.dumps(task.labels if task else labels(model))
    return found
