"""Broken plans, importance and rows beside a sound model, and outputs that must not be written."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from ffc.graph import files
from tests import graphs
from tests.safety.broken import encoder, put, row

# Plans, importance, rows


def _pruned(folder: Path, plan: object, key: str = "plan") -> list[str]:
    put(folder, encoder())
    name = "p.json" if key == "plan" else "p.safetensors"
    (folder / name).write_bytes(plan if isinstance(plan, bytes) else json.dumps(plan).encode())
    how = f"prune{{{key}={name}{'' if key == 'plan' else ' heads=1'}}}"
    return ["compile", "m.onnx", "--passes", how, "-o", "out.onnx"]


def _plan(**layer: object) -> dict[str, object]:
    return {"format": "ffc.plan/1", "layers": [layer]}


_PRINT = "0" * 64
for _what, _content, _code, _words in (
    (
        "for other weights",
        _plan(heads=[0], fingerprints=dict.fromkeys(("q", "k", "v", "attn_out"), _PRINT)),
        4,
        "weight",
    ),
    ("without fingerprints", _plan(heads=[0]), 4, "fingerprint"),
    ("out of range", _plan(heads=[0, 99], of_heads=3), 3, "99"),
    ("that empties a layer", _plan(heads=[]), 3, "heads"),
    ("not JSON", b"heads: 3", 3, "not a plan"),
    ("a pickle", pickle.dumps([1]), 3, "not a plan"),
    ("nested without end", b"[" * 100_000, 3, "not a plan"),
):
    row(f"plan {_what}", _code, _words)(lambda folder, content=_content: _pruned(folder, content))


@row("plan that is a pipe", 3, "no regular file")
def _plan_pipe(folder: Path) -> list[str]:
    put(folder, encoder())
    os.mkfifo(folder / "p.json")
    return ["compile", "m.onnx", "--passes", "prune{plan=p.json}", "-o", "out.onnx"]


@row("plan outside, named by the model", 4, "outside its folder")
def _plan_outside(folder: Path) -> list[str]:
    proto = onnx.ModelProto.FromString(encoder())
    proto.metadata_props.add(key="ffc.plan", value="../../../../etc/passwd")
    put(folder, proto)
    return ["compile", "m.onnx", "--passes", "prune", "-o", "out.onnx"]


@row("importance of wrong shapes", 4, "heads")
def _importance(folder: Path) -> list[str]:
    from ffc.pruning.importance import Importance, LayerImportance

    arguments = _pruned(folder, b"", "importance")
    Importance((LayerImportance(np.ones(5, np.float32), np.ones(7, np.float32)),), "norm").save(
        folder / "p.safetensors"
    )
    return arguments


@row("importance that is a pickle", 3, "not a safetensors file")
def _importance_pickle(folder: Path) -> list[str]:
    return _pruned(folder, pickle.dumps({"layers.0.heads": [1.0]}), "importance")


def _with_rows(folder: Path, **arrays: np.ndarray) -> list[str]:
    put(folder, encoder())
    np.savez(folder / "rows.npz", allow_pickle=True, **arrays)
    return ["compile", "m.onnx", "--data", "rows.npz", "-o", "out.onnx"]


row("rows of other names", 3, "has no array 'input_ids'")(
    lambda folder: _with_rows(folder, ids=np.ones((2, 3), np.int64))
)
row("rows of another type", 3, "is of type float64")(
    lambda folder: _with_rows(
        folder, **dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), np.ones((2, 3)))
    )
)
row("rows that are pickled objects", 3, "cannot read rows")(
    lambda folder: _with_rows(folder, input_ids=np.array([{"a": 1}, None], dtype=object))
)


# Outputs


@row("output folder missing", 2, "does not exist")
def _no_folder(folder: Path) -> list[str]:
    put(folder, encoder())
    return ["compile", "m.onnx", "-o", "absent/out.onnx"]


@row("output folder that takes no files", 2, "cannot write in the folder '/proc'")
def _no_files(folder: Path) -> list[str]:
    put(folder, encoder())
    return ["compile", "m.onnx", "--passes", "clean", "-o", "/proc/out.onnx"]


def _over(folder: Path, out: str) -> list[str]:
    put(folder, encoder())
    (folder / "inner").mkdir()
    (folder / "soft.onnx").symlink_to("m.onnx")
    (folder / "hard.onnx").hardlink_to(folder / "m.onnx")
    return ["compile", "m.onnx", "-o", out]


for _what, _out in (
    ("", "m.onnx"),
    (" by another spelling", "inner/../m.onnx"),
    (" by a symlink", "soft.onnx"),
    (" by a hard link", "hard.onnx"),
):
    row(f"output equal to input{_what}", 2, "is the input")(lambda folder, out=_out: _over(folder, out))


def _beside(folder: Path) -> str:
    """Save a model with external data; return the name of its data file."""
    files.save(graphs.encoder(), folder / "m.onnx", external=True)
    (data,) = folder.glob("m.onnx.*.data")
    data.rename(folder / "weights.json")
    proto = onnx.load(folder / "m.onnx", load_external_data=False)
    for entry in (entry for tensor in proto.graph.initializer for entry in tensor.external_data):
        entry.value = "weights.json" if entry.key == "location" else entry.value
    put(folder, proto)
    return "weights.json"


@row("output equal to the input's data", 2, "is an input")
def _over_data(folder: Path) -> list[str]:
    return ["compile", "m.onnx", "-o", _beside(folder)]


@row("report equal to the input's data", 2, "is an input")
def _report_over_data(folder: Path) -> list[str]:
    return ["compile", "m.onnx", "-o", "out.onnx", "--report", _beside(folder)]


@row("plan written over the input's data", 2, "is an input")
def _plan_over_data(folder: Path) -> list[str]:
    return ["plan", "m.onnx", "--by", "norm", "--heads", "1", "-o", _beside(folder)]


@row("disk full", 3, "File too large; nothing was changed", file_size=4096)
def _full(folder: Path) -> list[str]:
    put(folder, encoder())
    (folder / "out.onnx").write_bytes(b"what was there before")
    return ["compile", "m.onnx", "--passes", "clean", "-o", "out.onnx"]
