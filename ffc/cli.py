"""The command ``ffc``: parse, call, print. What a command needs is imported inside it, so that help answers at once."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.errors import FfcError, UsageError, nearest

if TYPE_CHECKING:
    from ffc.compiler.base import Pass
    from ffc.compiler.library import Library
    from ffc.compiler.report import Report

__all__ = ["main"]

_PASSES = "fuse,int8"
_PIPE_CLOSED = 141  # 128 + SIGPIPE, as a shell reports it
_INTERRUPTED = 130
_WIDTH = 140  # of tables that do not go to a terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: The words after ``ffc``; those of this process if not given.
    """
    try:
        with ffc.make_context("ffc", list(sys.argv[1:] if arguments is None else arguments)) as context:
            ffc.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        return _fail(_usage(error), error.exit_code)
    except BrokenPipeError:
        # Python flushes stdout once more when it ends, which would fail again and say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    except Exception as error:
        return _fail_with(error)


def _fail_with(error: Exception) -> int:
    if isinstance(error, FfcError) and error.exit_code != FfcError.exit_code:
        return _fail(str(error), error.exit_code)
    if os.environ.get("FFC_TRACEBACK") == "1":
        traceback.print_exception(error)
    bug = f"this is a bug in ffc: {type(error).__name__}: {error} (FFC_TRACEBACK=1 shows the traceback)"
    return _fail(bug, FfcError.exit_code)


def _fail(message: str, code: int) -> int:
    click.echo(f"ffc: error: {' '.join(message.split())}", err=True)
    return code


def _usage(error: click.ClickException) -> str:
    """Say in one line what is wrong with the arguments, and offer the nearest name."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption):
        known = [name for item in context.command.get_params(context) for name in item.opts] if context else []
        return f"no such option '{error.option_name}'{nearest(error.option_name, known)}"
    if isinstance(error, click.exceptions.NoSuchCommand):
        return f"no such command '{error.command_name}'{nearest(error.command_name, ffc.commands)}"
    message = error.format_message().rstrip(".")
    return f"{message[:1].lower()}{message[1:]}"


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from ffc import __version__

    click.echo(f"ffc {__version__}")
    context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, callback=_print_version, expose_value=False, is_eager=True, help="Show the version."
)
def ffc() -> None:
    """Compile transformer encoders in ONNX into ones that cost a fraction to serve.

    Exit codes: 0 done, 1 a gate failed, 2 usage, 3 broken input, 4 a pass cannot apply, 5 something is not installed,
    70 a bug.
    """


_plugins = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE.py[:Name]", help="Passes of your own, by file.  [repeatable]"
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_model = click.argument("model", type=click.Path(path_type=Path))


@ffc.command("compile")
@_model
@click.option(
    "--passes", default=_PASSES, show_default=True, metavar="TEXT", help="The pipeline, such as 'fuse,int8{skip=head}'."
)
@click.option("--set", "sets", multiple=True, metavar="PASS.OPTION=VALUE", help="One option of a pass.  [repeatable]")
@_plugins
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="The file to write.  [default: <stem>.ffc.onnx]",
)
@click.option(
    "--target", type=click.Choice(["cpu", "portable"]), default="cpu", show_default=True, help="What to lower to."
)
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="ROWS.npz", help="Rows of your own to prove the passes on."
)
@click.option(
    "--report", "reports", type=click.Path(path_type=Path), multiple=True, metavar="PATH",
    help="Write the report as .json, .md or .html.  [repeatable]",
)  # fmt: skip
@_json
def compile_(
    model: Path, passes: str, sets: tuple[str, ...], plugins: tuple[str, ...], out: Path | None, target: str,
    data: Path | None, reports: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Compile MODEL, an ONNX file, through a pipeline of passes, each proved on the model."""
    out = out or model.with_name(f"{model.stem}.ffc.onnx")
    _check_output(model, out)
    from ffc.compiler import pipeline, render

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it remarks on things that users cannot act upon
    for path in reports:
        render.check_path(path)
    result = pipeline.compile(
        model,
        passes,
        out=out,
        data=data,
        target=target,
        sets=sets,
        plugins=plugins,
        progress=lambda line: click.echo(line, err=True),
    )
    for path in reports:
        render.write(result.report, path)
    _print_report(result.report, as_json)


def _check_output(model: Path, out: Path) -> None:
    """Refuse, before any work, an output that would destroy the input or cannot be written."""
    if out.resolve() == model.resolve() or (out.exists() and model.exists() and out.samefile(model)):
        raise UsageError(f"the output '{out}' is the input; name another file with -o")
    if out.is_dir():
        raise UsageError(f"the output '{out}' is a folder; name a file with -o")
    if not out.parent.is_dir():
        raise UsageError(f"the folder '{out.parent}' of the output does not exist; create it first")


def _print_report(report: Report, as_json: bool) -> None:
    from ffc.compiler import render

    if as_json:
        click.echo(render.to_json(report), nl=False)
    else:
        _print_rich(render.terminal(report))


def _print_rich(renderable: Any) -> None:
    from rich.console import Console

    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=_WIDTH, highlight=False)
    console.print(renderable, crop=False)


@ffc.command()
@click.argument("name", required=False)
@_plugins
@_json
def passes(name: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """List the passes, or show one of them: its contract, its options and its rules."""
    from ffc.compiler.library import Library

    library = Library.default(plugins)
    if name is not None and name not in library:
        raise UsageError(f"unknown pass '{name}'{nearest(name, library)}")
    shown = [_describe(library, each) for each in ([name] if name else sorted(library))]
    if as_json:
        import json

        click.echo(json.dumps(shown[0] if name else shown, indent=2, ensure_ascii=False))
    elif name:
        click.echo(_one_pass(shown[0]))
    else:
        _print_rich(_pass_table(shown))


def _describe(library: Library, name: str) -> dict[str, Any]:
    """Return what is known of a pass, as data."""
    import dataclasses
    import inspect

    from ffc.compiler.spec import kinds
    from ffc.compiler.values import spell

    kind = library[name]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    options = [
        {
            "name": option,
            "type": wanted.text,
            "required": wanted.required,
            "default": None if wanted.required else spell(wanted.default),
            "help": fields[option].metadata.get("help", ""),
        }
        for option, wanted in kinds(kind).items()
    ]
    # An undocumented dataclass gets its signature as docstring, and a subclass without one inherits that of Pass.
    own = vars(kind).get("__doc__") or ""
    doc = "" if own.startswith(f"{kind.__name__}(") else inspect.cleandoc(own)
    return {
        "name": name, "contract": _contract(kind), "doc": doc,
        "origin": library.origin(name), "needs": list(kind.needs),
        "before_int8": kind.before_int8, "options": options, "rules": [rule.name for rule in kind.rules],
    }  # fmt: skip


def _contract(kind: type[Pass]) -> str:
    """Say what a pass promises with default options; one that computes it from required options says so."""
    try:
        return str(kind().contract)
    except TypeError:
        stated = vars(kind).get("contract")
        return "depends on its options" if stated is None or isinstance(stated, property) else str(stated)


def _pass_table(shown: list[dict[str, Any]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    grid = Table("pass", "contract", "what it does", "origin", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for item in shown:
        first = item["doc"].partition("\n")[0].replace("``", "")
        grid.add_row(*(Text(cell) for cell in (item["name"], item["contract"], first, item["origin"])))
    return grid


def _one_pass(item: dict[str, Any]) -> str:
    lines = [
        f"{item['name']}: {item['doc'] or '(no description)'}",
        "",
        f"contract: {item['contract']}",
        f"origin: {item['origin']}",
    ]
    lines += [f"needs: {', '.join(item['needs'])}"] if item["needs"] else []
    lines += ["runs before int8"] if item["before_int8"] else []
    lines += ["", "options:"]
    for option in item["options"]:
        default = "required" if option["required"] else f"default {option['default']}"
        lines.append(f"  {option['name']} ({option['type']}, {default}): {option['help']}")
    lines += ["", "rules:", *(f"  {rule}" for rule in item["rules"])] if item["rules"] else []
    return "\n".join(lines)


def _read_amount(context: click.Context, parameter: click.Parameter, text: str | None) -> int | float | None:
    """Read a count such as 6 or a share such as 0.5; the spelling tells one head from a share of 1.0."""
    if text is None:
        return None
    try:
        amount = int(text) if text.isdecimal() else float(text)
    except ValueError:
        amount = -1
    if (isinstance(amount, int) and amount >= 1) or (isinstance(amount, float) and 0 < amount <= 1):
        return amount
    raise click.BadParameter(f"{text!r} is neither a count such as 6 nor a share such as 0.5", context, parameter)


@ffc.command()
@_model
@click.option("--heads", callback=_read_amount, metavar="N|R", help="Heads that each layer keeps: a count or a share.")
@click.option(
    "--ffn", callback=_read_amount, metavar="N|R", help="Feed-forward units that each layer keeps: a count or a share."
)
@click.option("--importance", type=click.Path(path_type=Path), metavar="FILE", help="Scores: importance.safetensors.")
@click.option("--by", type=click.Choice(["norm"]), help="Score by the weights themselves.")
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    default=Path("plan.json"),
    show_default=True,
    metavar="OUT",
)
@_json
def plan(
    model: Path,
    heads: int | float | None,
    ffn: int | float | None,
    importance: Path | None,
    by: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Choose which heads and feed-forward units of MODEL to keep, for the pass prune."""
    if (importance is None) == (by is None):
        raise UsageError("ffc plan needs one of --importance FILE and --by norm")
    if heads is None and ffn is None:
        raise UsageError("ffc plan needs --heads or --ffn, or it would keep everything")
    if not out.parent.is_dir():
        raise UsageError(f"the folder '{out.parent}' of the output does not exist; create it first")
    if any(path is not None and out.resolve() == path.resolve() for path in (model, importance)):
        raise UsageError(f"the output '{out}' is an input; name another file with -o")
    from ffc.pruning import make_plan

    made = make_plan(model, heads=heads, ffn=ffn, importance=importance, by=by)
    made.save(out)
    click.echo(made.to_json() if as_json else made.summary(), nl=not as_json)


@ffc.command("print")
@_model
@click.option("--no-weights", is_flag=True, help="Leave out what the weights hold.")
def print_(model: Path, no_weights: bool) -> None:
    """Print MODEL as text."""
    from ffc.graph.files import load
    from ffc.graph.text import text

    click.echo(text(load(model), weights=not no_weights), nl=False)


if __name__ == "__main__":
    sys.exit(main())
