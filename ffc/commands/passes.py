"""``ffc passes``: the passes there are, and what is known of each."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import TYPE_CHECKING, Any

import click

from ffc.commands.options import shared
from ffc.errors import UsageError, nearest

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ffc.compiler.library import Library
    from ffc.compiler.passes import Pass

__all__ = ["passes"]


@click.command()
@click.argument("name", required=False)
@shared.plugins
@shared.as_json
def passes(name: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """List the passes, or show one of them: its contract, its options and its rules."""
    from ffc.compiler.library import Library

    library = Library.default(plugins)
    if name is not None and name not in library:
        raise UsageError(f"unknown pass '{name}'{nearest(name, library)}")
    shown = [_describe(library, each) for each in ([name] if name else sorted(library))]
    if as_json:
        click.echo(json.dumps(shown[0] if name else shown, indent=2, ensure_ascii=False))
    elif name:
        click.echo(_one_pass(shown[0]))
    else:
        shared.print_rich(_pass_table(shown))


def _describe(library: Library, name: str) -> dict[str, Any]:
    """Return what is known of a pass, as data."""
    from ffc.compiler.option_values import spell
    from ffc.compiler.syntax import kinds

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
        "rounds": kind.rounds, "before_rounding": kind.before_rounding,
        "options": options, "rules": [rule.name for rule in kind.rules],
    }  # fmt: skip


def _contract(kind: type[Pass]) -> str:
    """Say what a pass promises with default options; one that computes it from required options says so."""
    try:
        return str(kind().contract)
    except TypeError:
        stated = vars(kind).get("contract")
        return "depends on its options" if stated is None or isinstance(stated, property) else str(stated)


def _pass_table(shown: list[dict[str, Any]]) -> RenderableType:
    from ffc.tables.table import Table, columns
    from ffc.tables.terminal import grid

    firsts = [item["doc"].partition("\n")[0].replace("``", "") for item in shown]
    rows = [(item["name"], item["contract"], first, item["origin"]) for item, first in zip(shown, firsts, strict=True)]
    return grid(Table(columns("pass", "contract", "what it does", "origin"), tuple(rows)))


def _one_pass(item: dict[str, Any]) -> str:
    lines = [
        f"{item['name']}: {item['doc'] or '(no description)'}",
        "",
        f"contract: {item['contract']}",
        f"origin: {item['origin']}",
    ]
    lines += [f"needs: {', '.join(item['needs'])}"] if item["needs"] else []
    lines += ["rounds numbers"] if item["rounds"] else []
    lines += ["runs before numbers are rounded"] if item["before_rounding"] else []
    lines += ["", "options:"]
    for option in item["options"]:
        default = "required" if option["required"] else f"default {option['default']}"
        lines.append(f"  {option['name']} ({option['type']}, {default}): {option['help']}")
    lines += ["", "rules:", *(f"  {rule}" for rule in item["rules"])] if item["rules"] else []
    return "\n".join(lines)
