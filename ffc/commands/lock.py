"""``ffc lock``: what a compiled graph must look like, as a text to commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ffc.commands.options import shared

__all__ = ["lock"]


@click.command()
@shared.model
@click.option("--passes", metavar="TEXT", default="fuse,int8", show_default=True, help="The pipeline.")
@shared.sets
@shared.plugins
@shared.target
@shared.rows()
@click.option("--as-it-is", is_flag=True, help="Lock MODEL itself; nothing is compiled.")
@shared.output(metavar="LOCK", help="The file to write.  [default: <stem>.ffc.lock beside MODEL]")
def lock(model: Path, passes: str, as_it_is: bool, out: Path | None, data: tuple[Path, ...], **given: Any) -> None:
    """Compile MODEL and write the lock of what comes of it: a text to commit, which `ffc check` holds it against.

    The lock has a line for each node of the graph, and a digest of all weights: a model that was trained again moves
    one line.
    """
    from ffc.ci.lock import check as checks
    from ffc.ci.lock.lock import beside
    from ffc.ci.reports.content import place

    path = out or beside(model)
    shared.check_file(path, [model, *data])
    shared.keep_clean([path])
    shared.hush()
    rows = shared.rows_given(data, given)
    made = checks.lock(model, None if as_it_is else passes, out=path, data=rows, progress=shared.say, **given)
    click.echo(
        f"{place(path)}: {made.cost.nodes} nodes, structure {made.structure[:12]}, weights {made.weights.digest[:12]}"
    )
