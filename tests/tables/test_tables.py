"""One table in each of its forms; nothing in a cell means anything to any of them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from ffc.tables import html, markdown, terminal
from ffc.tables.table import Code, Column, Table, columns, number

HOSTILE = "[red]a|b[/red] <i>*c*</i> `_d_` \\"
TABLE = Table(
    (Column("kind"), Column("", number=True), *columns("what", "by")),
    (("plain", "×2", HOSTILE, Code(HOSTILE)), ("", "×10", "", Code(""))),
    bold=frozenset([0]),
    notes=("a <b>note</b>",),
)


def written(width: int, **options: object) -> list[str]:
    """Return the lines that a terminal of some width shows, with the marks of styles."""
    console = Console(width=width, highlight=False, color_system="standard", force_terminal=True)
    with console.capture() as captured:
        console.print(terminal.grid(TABLE, **options))
    return captured.get().splitlines()


def page(tmp_path: Path) -> str:
    template = tmp_path / "t.html"
    template.write_text('{% extends "page.html" %}{% from "table.html" import table %}{% block body %}{{ table(shown) }}{% endblock %}')
    return html.render(template, title="t", facts={}, shown=TABLE)


def test_columns_of_numbers_follow_those_of_text() -> None:
    assert columns("a", "b", numbers=("c",)) == (Column("a"), Column("b"), Column("c", number=True))


def test_markdown_has_all_cells_and_says_which_columns_hold_numbers() -> None:
    lines = markdown.lines(TABLE)
    assert lines[:2] == ["| kind | | what | by |", "| :-- | --: | :-- | :-- |"]
    assert lines[3:] == ["|  | ×10 |  |  |", "", "a &lt;b>note&lt;/b>"]
    assert lines[2].startswith("| **plain** | **×2** | **") and lines[2].endswith("** |")


def test_what_shows_nothing_has_no_marks_in_markdown() -> None:
    table = Table(columns("what", "by"), (("", Code(" ")),), bold=frozenset([0]))
    assert markdown.lines(table)[2] == "|  |  |"


def test_what_a_cell_says_reaches_a_reader_of_markdown_as_it_is() -> None:
    table = Table(columns("what", "by"), ((HOSTILE.replace("`", ""), Code(HOSTILE)),))
    tokens = MarkdownIt("commonmark").enable("table").parse("\n".join(markdown.lines(table)))
    cells = [token.children or [] for token in tokens if token.type == "inline"][2:]
    assert len(cells) == 2
    assert "".join(child.content for child in cells[0]) == HOSTILE.replace("`", "")
    assert [(child.type, child.content) for child in cells[1]] == [("code_inline", HOSTILE.replace("|", "\\x7c"))]


def test_html_is_escaped_and_marks_numbers_and_what_stands_out(tmp_path: Path) -> None:
    tags: list[tuple[str, str | None]] = []
    texts: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs).get("class")))

        def handle_data(self, data: str) -> None:
            texts.append(data)

    Parser().feed(page(tmp_path))
    assert [kind for tag, kind in tags if tag == "th"] == ["text", "number", "text", "text"]
    assert [kind for tag, kind in tags if tag == "td"] == ["text", "number", "text", "text"] * 2
    assert [kind for tag, kind in tags if tag == "tr"] == [None, "chosen", None]
    assert not {"i", "b"} & {tag for tag, _ in tags}
    assert texts.count(HOSTILE) == 2 and "a <b>note</b>" in texts


@pytest.mark.parametrize("ruled", [True, False])
def test_a_terminal_shows_cells_as_they_are_and_numbers_flush_right(ruled: bool) -> None:
    lines = written(200, ruled=ruled)
    assert any(set(line.strip()) == {"─"} for line in lines) == ruled
    assert lines[-2].count(HOSTILE) == 2
    assert lines[-2].index("×2") == lines[-1].index("×10") + 1


def test_a_terminal_shows_no_head_where_no_column_has_one() -> None:
    assert terminal.grid(TABLE).show_header
    assert not terminal.grid(Table(columns("", ""), (("a", "b"),))).show_header


def test_cells_look_as_the_caller_says() -> None:
    lines = written(200, style=lambda column, cell: "red" if column == 1 and cell == "×2" else "")
    assert "\x1b[31m" in lines[-2] and "\x1b[31m" not in lines[-1]


def test_text_is_as_wide_as_the_table_and_ends_with_its_notes() -> None:
    wide = Table(columns("a", numbers=("b",)), (("x" * 300, "1"), ("y", "12")), notes=("word " * 60,))
    lines = terminal.text(wide).splitlines()
    assert lines[0] == "a" + " " * 302 + "b"
    assert lines[1] == "─" * 304
    assert lines[2:4] == ["x" * 300 + "   1", "y" + " " * 301 + "12"]
    assert lines[4] == "" and max(map(len, lines[5:])) <= 110 and " ".join(lines[5:]).split() == ["word"] * 60


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1234"), (99.96, "100.0"), (9.876, "9.88"), (0.01234, "0.0123"), (0, "0")])
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_numbers_stay_whole_in_a_narrow_terminal() -> None:
    names = ("changes", "nodes", "parameters (M)", "MB", "MACs (G)", "seconds", "difference", "cosine")
    row = ("lower (for every compile)", "110", "1215", "110.6", "422.9", "11.43", "103.8", "1.3e-06", "1.000000")
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(terminal.grid(Table(columns("pass", numbers=names), (row,))), crop=False)
    lines = captured.get().splitlines()
    assert lines[3].split()[1:] == list(row[1:])
    assert max(map(len, lines)) == 80
