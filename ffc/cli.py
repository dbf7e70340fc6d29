"""The command ``ffc``: its commands, its exit code, and every error as one line."""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import ClassVar

import click

from ffc import guard, requirements, streams
from ffc.errors import FfcError, InputError, MissingError, nearest, one_line

__all__ = ["main"]

_PIPE_CLOSED = 141  # 128 + SIGPIPE, as a shell reports it
_INTERRUPTED = 130
_SCARCE = {
    getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EMFILE", "ENFILE", "ENOMEM", "EROFS", "EIO")
} - {None}
"""What the system says where it is at its end; no fault of a model, nor of ffc."""

_UNKNOWN = re.compile(r"No such command '(.*)'")
"""What click says of a command that there is not; it has an error of its own for that since 8.4 alone."""

_SPLIT = re.compile(r"[{}=,]")
"""What shows that a shell took a pipeline apart at its spaces or expanded its braces."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: The words after ``ffc``; those of this process if not given, and then the work is done in a
            process of its own, whose death is reported as an error.
    """
    if arguments is None:
        streams.prepare()
        return guard.run(lambda: _heard(main(sys.argv[1:])), _fail)
    with streams.lenient():
        return _ended(arguments)


def _ended(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code, whatever it ends with."""
    try:
        return _done(arguments)
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    except BaseException as error:  # also what a library leaves by: SystemExit, or the panic of one in Rust
        return _fail_with(error)


def _done(arguments: Sequence[str]) -> int:
    """Run the command line; return its exit code, also where click says what it is."""
    try:
        with ffc.make_context("ffc", list(arguments)) as context:
            ffc.invoke(context)
        if sys.stdout is not None:  # as it is in programs without a console
            sys.stdout.flush()
        return 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        return _fail(_usage(error, arguments), error.exit_code)


def _heard(code: int) -> int:
    """Return the exit code of a command, which is another where it worked and what it printed could not be written."""
    lost = streams.lost()
    if lost is None:
        return code
    if isinstance(lost, BrokenPipeError):
        return code or _PIPE_CLOSED
    why = "it is closed" if lost.errno == errno.EBADF else lost.strerror
    _fail(f"cannot write to standard output: {why}; what went there is lost, what was written to files is there", code)
    return code or MissingError.exit_code


def _fail_with(error: BaseException) -> int:
    if isinstance(error, MemoryError):
        message = f"not enough memory: {error}; use a larger machine, or raise --limit memory="
        return _fail(message, MissingError.exit_code)
    if isinstance(error, FfcError) and error.exit_code != FfcError.exit_code:
        return _fail(str(error), error.exit_code)
    if os.environ.get("FFC_TRACEBACK") == "1":
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.errno in _SCARCE:
        place = f" at '{os.fsdecode(error.filename)}'" if isinstance(error.filename, (str, bytes)) else ""
        message = f"the system has no room for what this takes: {error.strerror}{place}; make room, and try again"
        return _fail(message, MissingError.exit_code)
    if isinstance(error, PermissionError) and isinstance(error.filename, (str, bytes)):
        message = f"cannot get at '{os.fsdecode(error.filename)}': {error.strerror}; name another path, or allow it"
        return _fail(message, InputError.exit_code)
    said = f"{type(error).__name__}: {error}"
    if unfit := requirements.unfit(error):
        return _fail(f"{unfit} ({said})", MissingError.exit_code)
    return _fail(f"this is a bug in ffc: {said} (FFC_TRACEBACK=1 shows the traceback)", FfcError.exit_code)


def _fail(message: str, code: int) -> int:
    click.echo(f"ffc: error: {one_line(message)}", err=True)
    return code


def _usage(error: click.ClickException, arguments: Sequence[str]) -> str:
    """Say in one line what is wrong with the arguments, and offer the nearest name."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption):
        known = [name for item in context.command.get_params(context) for name in item.opts] if context else []
        name = error.option_name
        if not name.startswith("--"):  # click reads -passes as -p
            name = next((word for word in arguments if word.startswith(name)), name)
        return f"no such option '{name}'{nearest(name, known)}"
    if unknown := _UNKNOWN.match(error.message):
        name = unknown[1]
        group = context.command if context and isinstance(context.command, click.Group) else ffc
        options = (option for item in group.params for option in item.opts)
        known = [*group.list_commands(context or click.Context(group)), *options, "--help"]
        return f"no such command '{name}'{nearest(name, known)}"
    message = error.format_message().rstrip(".")
    advice = ""
    if message.startswith("Got unexpected extra") and _SPLIT.search(message):
        advice = "; quote a pipeline that has braces, as in --passes 'fuse,int8{skip=head}'"
    return f"{message[:1].lower()}{message[1:]}{advice}"


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from ffc.version import version

    click.echo(f"ffc {version()}")
    context.exit()


_MODULES = (
    "ffc.commands.check", "ffc.commands.compile", "ffc.commands.diff", "ffc.commands.explain", "ffc.commands.lock",
    "ffc.commands.passes", "ffc.commands.plan", "ffc.commands.print", "ffc.commands.reduce", "ffc.commands.score",
    "ffc.commands.study", "ffc.commands.training.distill", "ffc.commands.training.export",
    "ffc.commands.training.search", "ffc.commands.training.train", "ffc.commands.view",
)  # fmt: skip
"""The module of each command, which has its name."""


class _Commands(click.Group):
    """Imports a command when it is asked for: the options of all others would be most of what it takes to start."""

    _modules: ClassVar = {name.rpartition(".")[2]: name for name in _MODULES}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._modules:
            return None
        inside = vars(importlib.import_module(self._modules[cmd_name])).values()
        return next(each for each in inside if isinstance(each, click.Command) and each.name == cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, callback=_print_version, expose_value=False, is_eager=True, help="Show the version."
)
@click.option(
    "--limit", "changes", multiple=True, metavar="NAME=NUMBER",
    help="What a model may ask for before it is refused, such as nodes=500000 or memory=8G.  [repeatable]",
)  # fmt: skip
@click.pass_context
def ffc(context: click.Context, changes: tuple[str, ...]) -> None:
    """Compile transformer encoders in ONNX into ones that cost a fraction to serve.

    Exit codes: 0 done, 1 a gate failed, 2 usage, 3 broken input, 4 a pass cannot apply, 5 something is missing
    from the environment, 70 a bug.
    """
    if changes:
        from ffc import limits

        wanted = limits.parse(changes)
        context.with_resource(limits.applied(wanted))
        if wanted.memory:
            guard.limit_memory(wanted.memory)


if __name__ == "__main__":
    sys.exit(main())
