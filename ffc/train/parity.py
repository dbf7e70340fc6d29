"""Whether an exported graph gives what the torch model gives, on inputs of many shapes and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from ffc.errors import CannotApplyError, GateError
from ffc.graph.execute import Runner
from ffc.train.models.pretrained import longest

__all__ = ["check", "example"]

_TOLERANCE = 1e-4
"""Largest difference at real tokens, relative to the largest output."""

_CASES = (
    ("full", 1, 1),
    ("full", 1, 8),
    ("full", 2, 33),
    ("right-padded", 3, 12),
    ("left-padded", 3, 12),
    ("holed", 4, 17),
)


def check(model: nn.Module, graph: ir.Model, names: Sequence[str]) -> None:
    """Hold a graph to the torch model that it was exported from.

    Args:
        model: The model, on the CPU, in float32 and evaluation mode.
        graph: Its graph, whose outputs bear the names of those of the model.
        names: The inputs of the graph.

    Raises:
        CannotApplyError: If onnxruntime cannot run the graph.
        GateError: If an output differs by more than 1e-4 of its scale.
    """
    runner = Runner(graph)
    by_token = {value.name for value in graph.graph.outputs if _second(value) == _second(graph.graph.inputs[0])}
    most = longest(model)
    for kind, batch, wanted in _CASES:
        length = wanted if most is None else min(wanted, most)
        feeds = example(model, names, batch, length, kind)
        with torch.no_grad():
            output = model(**feeds)
        try:
            found = runner.run({name: feeds[name].numpy() for name in names})
        except CannotApplyError as error:
            raise CannotApplyError(f"the exported model fails on {kind} rows {batch}x{length}: {error}") from error
        real = feeds["attention_mask"].numpy() > 0
        for name, value in found.items():
            difference = _difference(output[name].numpy(), value, real if name in by_token else None)
            if not difference <= _TOLERANCE:
                raise GateError(
                    f"the exported model differs from torch by {difference:.3g} of its scale in {name} on {kind} rows "
                    f"{batch}x{length}, more than {_TOLERANCE:g}; nothing was written"
                )


def example(
    model: nn.Module, names: Sequence[str], batch: int, length: int, kind: str = "full"
) -> dict[str, torch.Tensor]:
    """Return random inputs within the tables of a model, the same for the same arguments.

    Args:
        model: It tells the sizes of vocabulary and types, the id of padding and the number of spans.
        names: The inputs to make.
        batch: Rows.
        length: Tokens a row.
        kind: Which tokens are real: ``full``, ``right-padded``, ``left-padded`` or ``holed``.
    """
    config: Any = model.config
    random = torch.Generator().manual_seed(batch * 1000 + length)
    mask = _mask(kind, batch, length)
    pad = getattr(config, "pad_token_id", None) or 0
    ids = torch.randint(0, config.vocab_size - 1, (batch, length), generator=random)
    ids = torch.where(mask, ids + (ids >= pad), pad)  # some models count positions by what is no padding
    made = {"input_ids": ids, "attention_mask": mask.long()}
    if "token_type_ids" in names:
        made["token_type_ids"] = torch.randint(0, config.type_vocab_size, (batch, length), generator=random)
    if "spans" in names:
        ends = torch.randint(0, length + 1, (batch, config.ffc_spans, 2), generator=random)
        made["spans"] = ends.sort(dim=-1).values
    return {name: made[name] for name in names}


def _mask(kind: str, batch: int, length: int) -> torch.Tensor:
    """Return bool [batch, length]; rows of a padded kind lose more tokens the later they come, the first none."""
    places, rows = torch.arange(length), torch.arange(batch)[:, None]
    masks = {
        "full": places >= 0 * rows,
        "right-padded": places < length - 2 * rows,
        "left-padded": places >= 2 * rows,
        "holed": (places + rows) % 3 != 2,
    }
    return masks[kind]


def _second(value: ir.Value) -> str:
    """Return the second dimension of a value in words, which for tokens has a name of its own."""
    return str(value.shape[1]) if value.shape is not None and len(value.shape) > 1 else ""


def _difference(expected: np.ndarray, found: np.ndarray, mask: np.ndarray | None) -> float:
    """Return the largest difference relative to the scale, at real tokens of [B, S, ...] or, without a mask, at all."""
    if expected.shape != found.shape:
        return float("inf")
    if mask is not None:
        expected, found = expected[mask], found[mask]
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(expected - found).max()) / scale
