"""``ffc compile``: a model through a pipeline of passes, from the command line or from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.commands.options import shared
from ffc.errors import UsageError

if TYPE_CHECKING:
    from ffc.recipe import Recipe

__all__ = ["compile_"]


def _find(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Look for a file where no saved model is named."""
    from ffc.folders.places import is_saved

    return path if is_saved(path) else shared.find_model(context, parameter, path)


@click.command("compile")
@click.argument("model", type=shared.PATH, required=False, callback=_find)
@click.option("--passes", metavar="TEXT", help="The pipeline, such as 'fuse,int8{skip=head}'.  [default: fuse,int8]")
@shared.sets
@shared.plugins
@shared.output(
    kind=click.Path(), help="The file or folder/ to write.  [default: <stem>.ffc.onnx, or <name>.ffc/ for a folder]"
)
@click.option("--target", metavar="NAME", help="What to lower to; portable is any runtime.  [default: cpu]")
@shared.rows()
@click.option(
    "--report", "reports", type=shared.OUTPUT, multiple=True, metavar="PATH",
    help="Write the report as .json, .md or .html.  [repeatable]",
)  # fmt: skip
@click.option(
    "--recipe", type=shared.PATH, metavar="FILE.toml",
    help="Read all of this from a file; what is given here comes first.  [default: [tool.ffc] of pyproject.toml]",
)  # fmt: skip
@shared.as_json
def compile_(model: Path | None, recipe: Path | None, as_json: bool, **given: Any) -> None:
    """Compile MODEL through a pipeline of passes, each proved on the model.

    MODEL is an ONNX file; or a folder of transformers or sentence-transformers, package:NAME of an installed package,
    or org/name of a model on the hub, which are exported from torch first and held to it. A folder as output gets
    model.onnx with the tokenizer, the config, and what sentence-transformers, fastembed and transformers.js look for.

    Without --recipe, the recipe is the table [tool.ffc] of a pyproject.toml in this folder or above, if there is one.
    """
    if model is not None and model.suffix == ".toml":
        raise UsageError(f"'{model}' is no model; a recipe is given as --recipe {model}")
    from ffc import recipe as recipes
    from ffc.compiler.reports.report import to_json
    from ffc.compiler.reports.terminal import terminal

    shared.hush()
    base = recipes.load(recipe) if recipe else _of_project()
    if model is None and base.model is None and not base.source:
        raise UsageError(
            "nothing to compile; give a model, as in `ffc compile model.onnx`, or a recipe that names one, by --recipe "
            "or as [tool.ffc] in pyproject.toml"
        )
    said = {name: value for name, value in given.items() if value not in (None, ())}
    wanted = recipes.changed(base, model=model, **said)
    shared.keep_clean([wanted.output, *wanted.reports], as_json=as_json)
    result = recipes.compile(wanted, progress=shared.say)
    if as_json:
        click.echo(to_json(result.report), nl=False)
    else:
        shared.print_rich(terminal(result.report))


def _of_project() -> Recipe:
    """Return the recipe of the project that the current folder is in, which is said, or one that says nothing."""
    from ffc import recipe as recipes

    found = recipes.find()
    if found is None:
        return recipes.Recipe()
    click.echo(f"using {found.source}", err=True)
    return found
