"""``ffc lock``: what a compiled graph must look like, as a text to commit."""

from __future__ import annotations

from pathlib import Path

import click

from ffc.commands.options import shared

__all__ = ["lock"]


@click.command()
@shared.model
@click.option("--passes", metavar="TEXT", default="fuse,int8", show_default=True, help="The pipeline.")
@click.option("--set", "sets", multiple=True, metavar="PASS.OPTION=VALUE", help="One option of a pass.  [repeatable]")
@shared.plugins
@click.option("--target", metavar="NAME", default="cpu", show_default=True, help="What to lower to.")
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="ROWS.npz", help="Rows of your own to prove the passes on."
)
@click.option("--as-it-is", is_flag=True, help="Lock MODEL itself; nothing is compiled.")
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    metavar="LOCK",
    help="The file to write.  [default: <stem>.ffc.lock beside MODEL]",
)
def lock(
    model: Path,
    passes: str,
    sets: tuple[str, ...],
    plugins: tuple[str, ...],
    target: str,
    data: Path | None,
    as_it_is: bool,
    out: Path | None,
) -> None:
    """Compile MODEL and write the lock of what comes of it: a text to commit, which `ffc check` holds it against.

    The lock has a line for each node of the graph, and a digest of all weights: a model that was trained again moves
    one line.
    """
    from ffc.ci.lock import check as checks
    from ffc.ci.lock.lock import SUFFIX
    from ffc.ci.reports.content import place

    path = out or model.with_name(model.stem + SUFFIX)
    shared.check_file(path, [model, data])
    shared.hush()
    made = checks.lock(
        model,
        None if as_it_is else passes,
        out=path,
        target=target,
        sets=sets,
        plugins=plugins,
        data=data,
        progress=lambda line: click.echo(line, err=True),
    )
    click.echo(
        f"{place(path)}: {made.cost.nodes} nodes, structure {made.structure[:12]}, weights {made.weights.digest[:12]}"
    )
