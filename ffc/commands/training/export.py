"""``ffc export``: a trained model as ONNX."""

from __future__ import annotations

from pathlib import Path

import click

from ffc.commands.options import shared
from ffc.settings import libraries

__all__ = ["export"]


@click.command()
@click.argument("source", metavar="FOLDER")
@shared.output("model.onnx")
def export(source: str, out: Path) -> None:
    """Export a model that ffc, transformers or sentence-transformers has saved in FOLDER to ONNX, for `ffc compile`.

    Batch and length are free, the inputs are those that the model makes use of, and the metadata name task and labels.
    The file is held to the model in torch before it is written. FOLDER may be package:NAME of an installed package, or
    org/name of a model on the hub.
    """
    shared.check_file(out, [Path(source)])
    shared.keep_clean([out])
    libraries.check(libraries.TRAINING, libraries.EXPORT)
    from ffc.graph.files.destination import destination
    from ffc.train import exportable
    from ffc.train.export import export

    shared.hush()
    found = exportable.read(source)
    export(found.model, out, tokenizer=found.tokenizer, provenance={"source": Path(source).name})
    real = destination(out).real
    click.echo(f"wrote {out}" if real is None else f"wrote {out}: {real.stat().st_size / 1e6:.1f} MB")
