"""What several commands share: arguments, options and printing."""

from __future__ import annotations

import difflib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["as_json", "find_model", "hush", "model", "plugins", "print_rich"]

_UNBROKEN = 10_000
"""Width of tables that do not go to a terminal, so that their lines are not broken."""


def find_model(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Offer the nearest name where there is no such file; what is wrong with one that exists, loading it tells."""
    if path is None or path.exists() or context.resilient_parsing:
        return path
    near = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.onnx")], n=1, cutoff=0.5)
    advice = f"did you mean '{path.with_name(near[0])}'?" if near else "check the path"
    raise InputError(f"cannot load {path}: no such file; {advice}")


model = click.argument("model", type=click.Path(path_type=Path), callback=find_model)
plugins = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE.py[:Name]", help="Passes of your own, by file.  [repeatable]"
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_rich(renderable: RenderableType) -> None:
    """Print a table to stdout."""
    from rich.console import Console

    width: dict[str, Any] = {} if sys.stdout.isatty() else {"width": _UNBROKEN}
    Console(highlight=False, **width).print(renderable, crop=False)


def hush() -> None:
    """Keep libraries from remarking on what users cannot act upon."""
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
