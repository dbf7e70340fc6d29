"""``ffc score``: how much heads and feed-forward units matter, by gradients of a checkpoint or runs of an ONNX file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.commands.options import shared
from ffc.commands.options.gradients import choose, draw, gradient_options, tenths
from ffc.commands.options.settings import names, options
from ffc.commands.options.task import task_files, task_options
from ffc.errors import UsageError
from ffc.settings.data import Data, Texts

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from ffc.pruning import Importance

__all__ = ["score"]

_FORWARD, _GRADIENTS = ("forward",), ("taylor", "fisher")


@click.command()
@shared.model_or_folder
@task_options
@click.option(
    "--method",
    type=click.Choice([*_GRADIENTS, *_FORWARD]),
    help="taylor and fisher take gradients of a checkpoint; forward runs an ONNX file.  [default: taylor or forward]",
)
@gradient_options
@options(Texts, but=["text"])
@shared.output("importance.safetensors")
@shared.as_json
def score(model: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Score the heads and feed-forward units of MODEL, for ffc plan.

    MODEL is the folder of a classifier, as ffc train writes it, scored on the training rows of --task; or an ONNX file,
    scored on the rows of --data: an .npz file with an array for each of its inputs, or text, .tsv, .csv or .jsonl.
    """
    of_folder = model.is_dir()
    _check_options(of_folder, given)
    shared.check_file(out, [model, *task_files(given)])
    shared.keep_clean([out], as_json=as_json)
    shared.hush()
    started = time.monotonic()
    found = _of_checkpoint(model, given) if of_folder else _of_file(model, out, given)
    found.save(out)
    click.echo(f"{found.samples} rows in {time.monotonic() - started:.1f} s", err=True)
    click.echo(_to_json(found, out) if as_json else _summary(found))


def _check_options(of_folder: bool, given: Mapping[str, Any]) -> None:
    method, tokenizer = given["method"], given["tokenizer"]
    if of_folder and method in _FORWARD:
        raise UsageError("--method forward runs an ONNX file; a checkpoint is scored by taylor or fisher")
    if of_folder and tokenizer is not None:
        raise UsageError("--tokenizer is for an ONNX file; a checkpoint has its own")
    if of_folder:
        return
    if method in _GRADIENTS:
        raise UsageError(f"--method {method} takes gradients, which an ONNX file does not give; score the checkpoint")
    strangers = {"on", *names(Data)} - {"folder", "train_rows", "text"}
    if misplaced := shared.given_option(strangers):
        raise UsageError(f"{misplaced} is for checkpoints; an ONNX file is scored on the rows of --data alone")
    if given["folder"] is None:
        raise UsageError(
            "an ONNX file is scored on rows; give --data rows.npz, an array for each of its inputs, or rows of text"
        )


def _of_file(path: Path, out: Path, given: Mapping[str, Any]) -> Importance:
    """Score an ONNX file by forward passes."""
    from ffc.compiler.chain import open_model, ready_for
    from ffc.compiler.library import Library
    from ffc.compiler.proof import rows
    from ffc.graph import files
    from ffc.graph.files import targets
    from ffc.pruning.forward import by_forward

    data: Path = given["folder"]
    asked = given["max_length"] if shared.given_option({"max_length"}) else None  # the default is for checkpoints
    meant = rows.settled(rows.of_files([data], given["text"], given["tokenizer"], asked) or data, path)
    targets.check_apart([out], files.parts(path, [out]))  # the file of its weights, if it has one
    loaded = open_model(path)
    number, seed = given["train_rows"], given["seed"]
    if isinstance(meant, Path):
        meant = _drawn(loaded, rows.read(meant), number, seed)
    batches = rows.from_data(loaded, meant, choose=lambda all_rows: _some(all_rows, number, seed), tell=shared.say)
    ready = ready_for("prune", loaded, Library.default())
    return by_forward(ready, batches, data=data.name, seed=seed, progress=tenths())


def _some(of: int, rows: int | None, seed: int) -> Sequence[int]:
    """Return which of so many rows are taken."""
    return range(of) if rows is None or rows >= of else choose(of, rows, seed)


def _drawn(model: ir.Model, arrays: Mapping[str, Any], rows: int | None, seed: int) -> Mapping[str, Any]:
    """Return some rows of the arrays that a model takes, in their order; other arrays are the same for all rows."""
    import numpy as np

    taken = {name: np.asarray(arrays[name]) for value in model.graph.inputs if (name := str(value.name)) in arrays}
    number = max((len(array) for array in taken.values() if array.ndim), default=0)
    if rows is None or len(taken) != len(model.graph.inputs) or rows >= number:
        return arrays
    chosen = choose(number, rows, seed)
    drawn = {name: array[chosen] if array.ndim and len(array) == number else array for name, array in taken.items()}
    return {**arrays, **drawn}


def _of_checkpoint(folder: Path, given: Mapping[str, Any]) -> Importance:
    """Score a checkpoint by gradients on the training rows of a task."""
    drawn = draw(folder, given)
    from ffc.train.pruning import importance

    return importance.score(
        drawn.model,
        drawn.rows,
        drawn.collator,
        method=given["method"] or "taylor",
        on=given["on"],
        data=f"{drawn.task.name} train",
        seed=given["seed"],
        progress=tenths(),
    )


def _summary(importance: Importance) -> str:
    lines = []
    for index, layer in enumerate(importance.layers):
        parts = (("heads", layer.heads), ("units", layer.ffn))
        lines.append(f"layer {index}: {', '.join(_range(name, scores) for name, scores in parts)}")
    return "\n".join(lines)


def _range(name: str, scores: np.ndarray) -> str:
    return f"{len(scores)} {name} {scores.min():.3g} to {scores.max():.3g}" if len(scores) else f"no {name}"


def _to_json(importance: Importance, out: Path) -> str:
    layers = [
        {"heads": layer.heads.tolist(), "units": len(layer.ffn), "unit_range": _ends(layer.ffn)}
        for layer in importance.layers
    ]
    told = {name: getattr(importance, name) for name in ("method", "data", "samples", "seed", "model")}
    return json.dumps({"file": str(out), **told, "layers": layers}, indent=1)


def _ends(scores: np.ndarray) -> list[float]:
    return [float(scores.min()), float(scores.max())] if len(scores) else []
