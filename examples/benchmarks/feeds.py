"""Make random inputs for an exported encoder: token ids within its vocabulary, masks that are full or padded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

Feed = dict[str, npt.NDArray[np.int64]]

MASKS = ("full", "padded")
SPECIAL = 5
"""Ids below this one are left out: padding and the like, which some models count positions by."""


def vocabulary(path: Path) -> int:
    """Return the vocabulary size of a model: the rows of the table that `input_ids` looks up.

    Raises:
        ValueError: No `Gather` of a constant table by `input_ids` is in the graph.
    """
    graph = onnx.load(path, load_external_data=False).graph
    rows = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 2}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in rows and node.input[1] == "input_ids":
            return int(rows[node.input[0]])
    raise ValueError(f"{path}: no embedding table is looked up by an input named 'input_ids'")


def feed(mask: str, words: int, batch: int, length: int, rng: np.random.Generator) -> Feed:
    """Return random int64 inputs `[batch, length]`.

    Args:
        mask: ``"full"``, or ``"padded"``: each row padded on the right to between a half and all but one of its tokens.
        words: Size of the vocabulary.
        batch: Rows.
        length: Tokens a row, padding included, at least 2.
        rng: Where the randomness comes from.

    Returns:
        `input_ids`, `attention_mask` and `token_type_ids`; take those that the model has.

    Raises:
        ValueError: The length is below 2, the vocabulary too small, or no such mask is known.
    """
    if mask not in MASKS:
        raise ValueError(f"unknown mask {mask!r}; known: {', '.join(MASKS)}")
    if length < 2 or words <= SPECIAL:
        raise ValueError(f"length {length} and vocabulary {words} must be at least 2 and {SPECIAL + 1}")
    ids = rng.integers(SPECIAL, words, (batch, length), dtype=np.int64)
    real = rng.integers(length // 2, length, (batch, 1)) if mask == "padded" else np.full((batch, 1), length)
    attended = (np.arange(length)[None, :] < real).astype(np.int64)
    return {
        "input_ids": np.where(attended == 1, ids, 0),
        "attention_mask": attended,
        "token_type_ids": np.zeros_like(ids),
    }
