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
    """Export a model that `ffc train`, `ffc distill` or transformers has saved in FOLDER to ONNX, for `ffc compile`.

    Batch and length are free, the inputs are those that the model makes use of, and the metadata name task and labels.
    The file is held to the model in torch before it is written. FOLDER may be package:NAME of an installed package.
    """
    shared.check_file(out, [Path(source)])
    libraries.check(libraries.TRAINING, libraries.EXPORT)
    from ffc.train.export import export
    from ffc.train.models import loading, pretrained

    shared.hush()
    model = loading.load(Path(loading.locate(source)))
    export(model, out, tokenizer=pretrained.tokenizer(source), provenance={"source": Path(source).name})
    click.echo(f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB")
