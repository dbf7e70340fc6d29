"""``ffc view``: a model as a drawing."""

from __future__ import annotations

from pathlib import Path

import click

from ffc.commands.options import shared
from ffc.settings import libraries

__all__ = ["view"]


@click.command()
@shared.model
@shared.output(help="The page to write.  [default: the model's name with .html, in the folder at hand]")
def view(model: Path, out: Path | None) -> None:
    """Draw MODEL as one HTML page that needs nothing else."""
    out = out or Path(model.with_suffix(".html").name)
    shared.check_file(out, [model])
    shared.keep_clean([out])
    libraries.check(libraries.PAGES)
    from ffc.ci.matching.snapshot import of_model
    from ffc.ci.page.page import model_page
    from ffc.graph.cost import cost
    from ffc.graph.files import load, publish

    shared.hush()
    loaded = load(model, lazily=True)
    page = model_page(of_model(loaded, str(model), weights=False), cost(loaded))
    publish.write_text(out, page, f"'{out}'")
    click.echo(f"wrote {out}", err=True)
