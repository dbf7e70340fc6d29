"""A diff in a window: one line a group, however narrow it is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import ffc
from ffc.ci.diff.diff import Diff, diff
from ffc.ci.reports.terminal import terminal


@pytest.fixture(scope="module")
def compiled(exported: Callable[..., Path]) -> Diff:
    path = exported("bert", head=True)
    return diff(path, ffc.compile(path, "fuse").model)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_group_is_one_line_that_fits(compiled: Diff, width: int) -> None:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(terminal(compiled))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    told = [line for line in lines if line.startswith(("interface ", "structure ", "attribute ", "weight-"))]
    assert len(told) == len(compiled.groups)
    assert width < 80 or any("→ Attention" in line for line in told), "what a block became stays in sight"


def test_nothing_is_cut_where_there_is_room(compiled: Diff) -> None:
    console = Console(width=10_000, highlight=False)
    with console.capture() as captured:
        console.print(terminal(compiled))
    assert "…" not in captured.get()
    for group in compiled.groups:
        assert group.what in captured.get()
