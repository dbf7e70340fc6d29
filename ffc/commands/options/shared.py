"""What several commands share: arguments, options and printing."""

from __future__ import annotations

import difflib
import functools
import logging
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ffc import streams
from ffc.commands.options.settings import names, options
from ffc.errors import InputError, UsageError
from ffc.settings.data import LimitedTexts

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ffc.compiler.proof.rows import Data

__all__ = [
    "OUTPUT", "OUTPUT_FOLDER", "PATH", "Command", "as_json", "but_plans", "check_file", "find_model", "given_option",
    "hush", "keep_clean", "model", "model_or_folder", "output", "parts", "plugins", "print_rich", "rows", "rows_given",
    "say", "sets", "target",
]  # fmt: skip

Command = TypeVar("Command", bound=Callable[..., Any])

_PARTS = ("model*.safetensors", "*.bin", "*.json", "*.jsonl", "*.txt")
"""Files of a checkpoint or of a task, which no output must go over."""

_UNBROKEN = 10_000
"""Width of tables that do not go to a terminal, so that their lines are not broken."""


def find_model(context: click.Context, _: click.Parameter, path: Path | None, *, folders: bool = False) -> Path | None:
    """Offer the nearest name where there is no such file; what is wrong with one that exists, loading it tells."""
    if path is None or path.exists() or context.resilient_parsing:
        return path
    known = [file.name for file in path.parent.glob("*.onnx")]
    if folders:
        known += [file.parent.name for file in path.parent.glob("*/config.json")]
    near = difflib.get_close_matches(path.name, known, n=1, cutoff=0.5)
    advice = f"did you mean '{path.with_name(near[0])}'?" if near else "check the path"
    raise InputError(f"cannot load {path}: no such file; {advice}")


PATH = click.Path(path_type=Path)


class _Output(click.Path):
    """A path to write to, of which ``-`` is standard output and ``./-`` a file; a name in ``/`` is no file."""

    def __init__(self, *, folder: bool = False) -> None:
        super().__init__(path_type=Path)
        self.folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        assert isinstance(found, Path)
        if not self.folder and isinstance(value, str) and value.endswith("/"):
            raise UsageError(f"the output '{value}' is named as a folder, and a file is written; leave out the '/'")
        if found.name != "-":
            return found
        from ffc.graph.files.destination import named

        return named(value)


OUTPUT, OUTPUT_FOLDER = _Output(), _Output(folder=True)

model = click.argument("model", type=PATH, callback=find_model)
model_or_folder = click.argument("model", type=PATH, callback=functools.partial(find_model, folders=True))
sets = click.option(
    "--set", "sets", multiple=True, metavar="PASS.OPTION=VALUE", help="One option of a pass.  [repeatable]"
)
plugins = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE.py[:Name]", help="Passes of your own, by file.  [repeatable]"
)
target = click.option("--target", metavar="NAME", default="cpu", show_default=True, help="What to lower to.")


def _escape(_: click.Context, __: click.Parameter, wanted: bool) -> bool:
    """Keep what is printed exact where it is JSON: what the encoding lacks may not be written as what looks alike."""
    if wanted:
        streams.escape()
    return wanted


as_json = click.option("--json", "as_json", is_flag=True, callback=_escape, help="Print JSON.")


def say(line: str) -> None:
    """Print a line on how work goes to stderr."""
    click.echo(line, err=True)


def rows(what: str = "Rows of your own to prove the passes on") -> Callable[[Command], Command]:
    """Add ``--data`` and what says how rows of text are read, which `rows_given` takes; `what` begins the help."""
    data = click.option(
        "--data", type=PATH, multiple=True, metavar="ROWS",
        help=f"{what}: .npz with an array per input, each one feed where given again; or text, .tsv, .csv or .jsonl.  "
        "[repeatable]",
    )  # fmt: skip
    return lambda command: data(options(LimitedTexts)(command))


def rows_given(data: Sequence[Path], given: dict[str, Any]) -> Data | None:
    """Return the rows that the options of `rows` name, of which all but ``--data`` are taken out of `given`.

    Raises:
        UsageError: If it is said how to read rows of text, and there are none.
    """
    from ffc.compiler.proof.rows import of_files

    return of_files(data, **{name: given.pop(name) for name in names(LimitedTexts)})


def output(
    default: str | None = None, *, help: str | None = None, metavar: str = "OUT", kind: click.Path = OUTPUT
) -> Callable[[Command], Command]:
    """Add the option that says where that goes which a command writes; `kind` tells how a command has the path."""
    place = None if default is None else Path(default)
    return click.option(
        "-o", "--output", "out", type=kind, default=place, show_default=True, metavar=metavar, help=help
    )  # fmt: skip


def check_file(out: Path, inputs: Iterable[Path | None], *, option: str = "-o") -> None:
    """Refuse, before any work, a file that cannot be written or would go over an input.

    Args:
        out: The file to write.
        inputs: Files, and folders with the files of a checkpoint or of a task; None and what is not there are left out.
        option: The option that names the file.

    Raises:
        UsageError: If there is such a reason.
    """
    from ffc.graph.files import targets

    targets.check_file(out, advice=f" with {option}")
    targets.check_apart([out], [file for path in inputs if path is not None for file in parts(path)])


def keep_clean(outs: Iterable[Path | None], *, as_json: bool = False) -> None:
    """Let nothing else get to standard output, for the rest of a command, where one of its outputs is written there.

    What the command prints goes to stderr then.

    Raises:
        UsageError: If JSON is to be printed too, or two outputs are written there.
    """
    from ffc.graph.files import targets
    from ffc.graph.files.destination import kept_clean

    there = [out for out in outs if out is not None and targets.is_standard_output(out)]
    if not there:
        return
    if len(there) > 1:
        raise UsageError(f"'{there[0]}' and '{there[1]}' are both standard output; name a file for one of them")
    if as_json:
        raise UsageError(f"--json is printed to standard output, and the output '{there[0]}' goes there; leave one out")
    click.get_current_context().with_resource(kept_clean())


def parts(path: Path) -> list[Path]:
    """Return a file itself, and of a folder the files of a checkpoint or of a task."""
    return [file for pattern in _PARTS for file in path.glob(pattern)] if path.is_dir() else [path]


def but_plans(path: Path) -> list[Path]:
    """Return the `parts` of a model, without plans that were made before, over which another may go."""
    return [file for file in parts(path) if not _is_plan(file)]


def _is_plan(file: Path) -> bool:
    if file.suffix != ".json":
        return False
    from ffc.pruning import Plan

    try:
        Plan.load(file)
    except InputError:
        return False
    return True


def given_option(names: Container[str]) -> str | None:
    """Return the first of some options of the command at hand that was given, as ``--max-length``, or None."""
    context = click.get_current_context()
    defaults = (None, ParameterSource.DEFAULT)
    offered = {each.opts[0]: each.name for each in context.command.params if each.name in names}
    return next(
        (option for option, name in offered.items() if context.get_parameter_source(str(name)) not in defaults), None
    )


def print_rich(renderable: RenderableType) -> None:
    """Print a table to stdout."""
    from rich.console import Console

    width: dict[str, Any] = {} if streams.is_terminal(sys.stdout) else {"width": _UNBROKEN}
    Console(highlight=False, **width).print(renderable, crop=False)


def hush() -> None:
    """Keep libraries from remarking on what users cannot act upon."""
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
