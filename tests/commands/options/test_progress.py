"""How a run is shown: lines where there is no terminal, bars on one."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console
from rich.progress import Progress

from ffc.commands.options import progress


def test_without_a_terminal_there_are_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress.progress() as told:
        told.begin(1, 2, "a: train")
        for step, seconds in enumerate((1, 11, 12, 22), 1):
            now[0] = float(seconds)
            told.tell(f"step {step} of 4", step, 4)
            told.tell(f"epoch {step} of 4: 90.0")
        told.end(22.04, kept=False)
        told.begin(2, 2, "b: export")
        told.end(3.0, kept=True)
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] a: train: epoch 1 of 4: 90.0",
        "[1/2] a: train: step 2 of 4",  # of lines that count, one every ten seconds
        "[1/2] a: train: epoch 2 of 4: 90.0",
        "[1/2] a: train: epoch 3 of 4: 90.0",
        "[1/2] a: train: step 4 of 4",
        "[1/2] a: train: epoch 4 of 4: 90.0",
        "[1/2] a: train: done in 22.0 s",
        "[2/2] b: export: kept",
    ]


def test_on_a_terminal_there_are_bars_that_move() -> None:
    text = io.StringIO()
    with Progress(console=Console(file=text, force_terminal=True, width=100), auto_refresh=False) as bars:
        told = progress.Bars(bars)
        told.begin(1, 2, "a: train")
        told.tell("step: loss 0.5", 3, 4)
        assert [(task.description, task.completed, task.total) for task in bars.tasks] == [
            ("step 1 of 2", 0, 2), ("a: train", 3, 4),
        ]  # fmt: skip
        assert bars.tasks[1].fields["line"] == "step: loss 0.5"
        told.end(1.23, kept=False)
        told.begin(2, 2, "b: export")
        assert [(task.description, task.completed) for task in bars.tasks] == [("step 2 of 2", 1), ("b: export", 0)]
        told.end(0.0, kept=True)
    assert "a: train: 1.2 s" in text.getvalue()
    assert "b: export: kept" in text.getvalue()
