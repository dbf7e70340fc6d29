"""`ffc.compile`: a model from a file, from memory or from where torch saved it, to a file or a folder."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from ffc.compiler import chain, pipeline
from ffc.compiler.library import Library
from ffc.compiler.passes import Pass
from ffc.compiler.pipeline import Result
from ffc.compiler.proof.rows import Data
from ffc.errors import MissingError
from ffc.folders import contents, writing
from ffc.folders.places import is_saved, place
from ffc.graph import files
from ffc.graph.files import targets

__all__ = ["compile"]

_LIBRARIES = ("torch", "transformers", "onnxscript")


def compile(
    model: str | Path | ir.Model,
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
        model: The path of an ONNX file, or a model in memory, which stays as it is; or where torch saved one, which is
            exported first: a folder of transformers, sentence-transformers or ffc, ``package:NAME``, or ``org/name`` on
            the hub.
        passes: The pipeline, as text (``"prune{plan=p.json},fuse,int8"``), or as a list of such texts and of passes.
        out: Where to write the result; nothing is written unless everything holds. A folder, named by a ``/`` at its
            end, one that exists, or for a model that is a folder any name but one in ``.onnx``, gets the model as
            `model.onnx` with its tokenizer, its config and what other libraries need.
        data: Rows of the user's own to prove on too: an array per input, or an ``.npz`` file with them; or a list of
            such, each one whole feed. Where the model runs on no inputs that can be made for it, they are the proof.
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
    wanted = None if out is None else place(out, model if isinstance(model, str | Path) else "")
    options = {"data": data, "target": target, "plugins": plugins, "progress": progress}
    if not is_saved(model) and (wanted is None or not wanted.folder):
        return pipeline.compile(model, passes, out=out, sets=sets, **options)  # type: ignore[arg-type]
    started = time.perf_counter()
    library = Library.default(plugins)
    asked = chain.as_passes(passes, library, sets)
    chain.with_lower((), library, target)  # which refuses an unknown target, before the export
    if wanted is not None:
        wanted.check()
        if isinstance(model, str | Path):
            targets.check_apart(list({wanted.path, wanted.model}), [Path(model), *_parts(model, wanted.model)])
    graph, beside = _opened(model, progress or (lambda line: None))
    folder = wanted is not None and wanted.folder
    result = pipeline.compile(graph, asked, out=None if folder else out, **options)  # type: ignore[arg-type]
    if wanted is not None and folder:
        writing.write(wanted.path, result.model, contents.with_modules(beside, result.model))
    report = replace(
        result.report,
        source=os.fspath(model) if isinstance(model, str | Path) else result.report.source,
        output=None if wanted is None else str(wanted.path),
        seconds=time.perf_counter() - started,
    )
    return replace(result, report=report)


def _parts(model: str | Path, out: Path) -> list[Path]:
    return [] if is_saved(model) else list(files.parts(Path(model), [out]))


def _opened(
    model: str | Path | ir.Model, tell: Callable[[str], None]
) -> tuple[str | Path | ir.Model, contents.Contents]:
    """Return what is to be compiled, and what goes along with it."""
    if not isinstance(model, str | Path):
        return model, {}
    if not is_saved(model):
        return model, contents.beside(Path(model))
    if lost := [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]:
        raise MissingError(
            f"'{model}' is exported by torch, and {', '.join(lost)} is not installed: "
            "pip install 'fastformers-compiler[train]'; or name an ONNX file"
        )
    from ffc.train import exportable
    from ffc.train.export import exported

    tell("exporting the model from torch, and comparing")
    saved = exportable.read(os.fspath(model))  # a `Path` would be no name on the hub
    graph = exported(saved.model, tokenizer=saved.tokenizer, provenance={"source": Path(model).name})
    return graph, contents.of_saved(saved)


