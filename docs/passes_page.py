"""The page on the passes, made from what `ffc passes --json` says of them whenever the site is built."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from ffc.commands.passes import passes
from ffc.compiler.reports.markdown import markdown

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

NAME = "passes.md"
OF_ALL = "expect"
"""The option that every pass has."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page; mkdocs calls this by its name."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, NAME, content=page()))
    return files


def page() -> str:
    """Return the page as Markdown."""
    found = json.loads(CliRunner().invoke(passes, ["--json"], catch_exceptions=False).output)
    lines = [
        "# Passes",
        "",
        "This page is made from what `ffc passes` says. Every pass has the option `expect`: the number of changes that",
        "it must make; any other number is an error.",
        "",
        "| pass | what it does | contract |",
        "| --- | --- | --- |",
    ]
    for item in found:
        first = prose(item["doc"].partition("\n")[0])
        lines.append(f"| [`{item['name']}`](#{item['name']}) | {first} | {item['contract']} |")
    for item in found:
        lines += section(item)
    return "\n".join(lines) + "\n"


def section(item: dict[str, Any]) -> list[str]:
    """Return what is known of one pass."""
    lines = ["", f"## {item['name']}", "", prose(item["doc"]), "", f"Contract: {item['contract']}."]
    lines += [f"Needs: {', '.join(item['needs'])}."] if item["needs"] else []
    lines += ["Rounds numbers."] if item["rounds"] else []
    lines += ["Runs before numbers are rounded."] if item["before_rounding"] else []
    options = [option for option in item["options"] if option["name"] != OF_ALL]
    if options:
        lines += ["", "| option | type | default | |", "| --- | --- | --- | --- |"]
        for each in options:
            cells = (f"`{each['name']}`", markdown(each["type"]), default(each), markdown(each["help"]))
            lines.append(f"| {' | '.join(cells)} |")
    if item["rules"]:
        lines += ["", f"{len(item['rules'])} rules: {', '.join(f'`{rule}`' for rule in item['rules'])}."]
    return lines


def prose(text: str) -> str:
    """Return a docstring as Markdown: its literals and lists, of which the second lines stand further in there."""
    return re.sub(r"^   (?=\S)", "    ", text.replace("``", "`"), flags=re.MULTILINE)


def default(option: dict[str, Any]) -> str:
    """Say what an option is where it is not given."""
    if option["required"]:
        return "required"
    return f"`{option['default']}`" if option["default"] else "none"
