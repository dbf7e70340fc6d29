"""`ffc.compile`: a model from a file, from memory or from where torch saved it, to a file or a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from ffc.compiler import chain, pipeline
from ffc.compiler.library import Library
from ffc.compiler.passes import Pass
from ffc.compiler.pipeline import Result
from ffc.compiler.proof.rows import Data, settled
from ffc.folders import contents, writing
from ffc.folders.places import MODEL, is_saved, place
from ffc.graph import files
from ffc.graph.files import ModelLike, targets
from ffc.settings import libraries

__all__ = ["compile"]


def compile(
    model: ModelLike,
    passes: str | Sequence[str | Pass] = "fuse,int8",
    *,
    out: str | Path | None = None,
    data: Data | None = None,
    target: str = "cpu",
    sets: Mapping[str, str] | Sequence[str] = (),
    plugins: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Compile a model: run passes over it, prove each, and end with kernels for a target.

    Args:
        model: A path, bytes, an ``onnx.ModelProto``, an ``onnx_ir.Model`` or a ``torch.onnx.ONNXProgram``, as
            `ffc.load` takes them; it stays as it is. Or where torch saved one, which is exported first: a folder of
            transformers, sentence-transformers or ffc, ``package:NAME``, or ``org/name`` on the hub.
        passes: The pipeline, as text (``"prune{plan=p.json},fuse,int8"``), or as a list of such texts and of passes.
        out: Where to write the result, as `ffc.save` takes it; nothing is written unless everything holds. A folder,
            named by a ``/`` at its end, one that exists, or for a model that is a folder any name but one in ``.onnx``,
            gets the model as `model.onnx` with its tokenizer, its config and what other libraries need.
        data: Rows of the user's own to prove on too: an array per input, or an ``.npz`` file with them; `ffc.TextRows`,
            or the path of their file; or a list of such, in which arrays are one whole feed each. Where the model runs
            on no inputs that can be made for it, they are the proof.
        target: What `lower` writes: ``cpu`` or ``cuda`` for onnxruntime's kernels there, ``portable`` for standard
            operators alone.
        sets: Further options as ``pass.option=value``.
        plugins: Files with passes, ``file.py`` or ``file.py:Name``.
        progress: Called with a line at every step.

    Returns:
        The compiled model and the report.

    Raises:
        UsageError: If the pipeline is malformed, or `out` is the input or cannot be written.
        InputError: If the model or the data is missing, broken, or differs from itself.
        CannotApplyError: If a pass cannot be applied as asked, or torch cannot export the model.
        GateError: If a contract does not hold, or the export differs from torch.
        MissingError: If the model is to be exported and the extra `train` is not installed, or the hub lacks it.
    """
    path = files.path_of(model)
    wanted = None if out is None else place(out, path)
    if not is_saved(model) and (wanted is None or not wanted.folder):
        return pipeline.compile(
            model, passes, out=out, data=data, target=target, sets=sets, plugins=plugins, progress=progress
        )
    started = time.perf_counter()
    library = Library.default(plugins)
    asked = chain.as_passes(passes, library, sets)
    chain.with_lower((), library, target)  # which refuses an unknown target, before the export
    if wanted is not None:
        wanted.check()
    if wanted is not None and path is not None:
        targets.check_apart(list({wanted.path, wanted.model}), [path, *_parts(path, wanted.model)])
    source, beside, data = _opened(model, data, progress or (lambda line: None))
    folder = wanted is not None and wanted.folder
    result = pipeline.compile(
        source, asked, out=None if folder else out, data=data, target=target, plugins=plugins, progress=progress
    )
    if wanted is not None and folder:
        writing.write(wanted.path, result.model, contents.with_modules(beside, result.model))
    report = replace(
        result.report,
        source=files.name_of(model),
        output=None if wanted is None else str(wanted.path),
        seconds=time.perf_counter() - started,
    )
    return replace(result, report=report)


def _parts(path: Path, out: Path) -> list[Path]:
    return [] if is_saved(path) else list(files.parts(path, [out]))


def _opened(
    model: ModelLike, data: Data | None, tell: Callable[[str], None]
) -> tuple[ModelLike, contents.Contents, Data | None]:
    """Return what is to be compiled, what goes along with it, and the rows, which know their tokenizer."""
    path = files.path_of(model)
    if not is_saved(model):
        return model, {} if path is None else contents.beside(path), data
    libraries.check(libraries.TRAINING, libraries.EXPORT)
    from ffc.train import exportable
    from ffc.train.export import exported

    named = os.fspath(cast("str | Path", model))  # a `Path` would be no name on the hub
    saved = exportable.read(named)
    data = None if data is None else settled(data, saved.encoder / MODEL)
    tell("exporting the model from torch, and comparing")
    graph = exported(saved.model, tokenizer=saved.tokenizer, provenance={"source": Path(named).name})
    return graph, contents.of_saved(saved), data
