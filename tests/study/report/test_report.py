"""The tables, plots and page of a run."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ffc import cli
from ffc.errors import MissingError, UsageError
from ffc.study.report import page, plots, summary, table
from ffc.study.report.summary import Measurements, Run
from ffc.tables import markdown, terminal
from tests.study.made_up import MEASUREMENTS, RUN, SECONDS, measured


def with_measurements(measurements: Measurements | None) -> Run:
    return dataclasses.replace(RUN, measurements=measurements)


def test_the_methods_stand_in_the_order_of_the_paper() -> None:
    assert [row.method for row in table.method_rows(RUN)] == [
        "PyTorch out of the box",
        "+ dynamic length",
        "+ distilled to small",
        "+ compiled (fuse,int8)",
        "+ several instances at once (not measured: part of serving)",
        "+ pruned to 75% of heads, 75% of units (three-quarters)",
        "+ pruned to 67% of heads, 50% of units (third)",
        "+ pruned to 50% of heads, 25% of units (quarter)",
    ]


def test_steps_count_from_the_method_before_and_pruned_ones_from_the_whole_student() -> None:
    rows = table.method_rows(RUN)
    assert [row.step for row in rows] == [
        None,
        *map(pytest.approx, (3, 2, 2.5)),
        None,
        *map(pytest.approx, (1.25, 1.6, 2.5)),
    ]
    assert [row.total for row in rows] == [
        *map(pytest.approx, (1, 3, 6, 15)),
        None,
        *map(pytest.approx, (18.75, 24, 37.5)),
    ]
    assert [row.accuracy for row in rows] == [91.0, 91.0, 90.2, 90.0, None, 89.6, 89.3, 87.4]


def test_a_query_costs_its_share_of_the_machine() -> None:
    first = table.method_rows(RUN)[0]
    assert first.milliseconds == pytest.approx(60)
    # 1e8 queries of 0.06 s are 1e5 / 60 core hours; a core is a quarter of 0.36 dollars an hour.
    assert first.dollars == pytest.approx(1e8 * 0.06 / 3600 * 0.36 / 4) == pytest.approx(150)
    assert first.core_seconds == pytest.approx(60.6)


def test_without_a_price_there_is_no_cost_and_without_counters_no_energy() -> None:
    shown = table.method_table(with_measurements(dataclasses.replace(MEASUREMENTS, dollars_per_hour=0.0)))
    assert not any("$" in column.title or column.title.startswith("J") for column in shown.columns)
    assert "Energy could not be read on this machine." in shown.notes


def test_energy_has_its_column_where_it_was_read() -> None:
    systems = {name: {way: measured(s, joules=2 * s) for way, s in ways.items()} for name, ways in SECONDS.items()}
    shown = table.method_table(with_measurements(dataclasses.replace(MEASUREMENTS, systems=systems)))
    column = [column.title for column in shown.columns].index("J for 1,000")
    assert [row[column] for row in shown.rows[:2]] == ["120", "40.0"]


def test_where_the_teacher_is_chosen_there_is_no_distillation() -> None:
    rows = table.method_rows(dataclasses.replace(RUN, chosen="teacher"))
    assert [row.system for row in rows] == ["teacher", "teacher", "teacher", ""]
    assert rows[2].step == pytest.approx(2.0 / 0.8)


def test_what_was_not_measured_is_left_blank() -> None:
    rows = table.method_rows(with_measurements(None))
    assert all(row.seconds is row.step is row.dollars is None for row in rows)
    assert table.method_table(with_measurements(None)).notes == ("Latency was not measured.",)


def test_tasks_side_by_side_end_with_the_overall_row() -> None:
    other = dataclasses.replace(RUN, task=dataclasses.replace(RUN.task, name="rte"), chosen="small")
    sst2, rte, overall = table.task_rows([RUN, other])
    assert (sst2.task, sst2.speed_up, rte.task, rte.speed_up) == ("sst2", pytest.approx(24), "rte", pytest.approx(15))
    assert overall.speed_up == pytest.approx((24 * 15) ** 0.5)
    assert overall.accuracy == pytest.approx((89.3 + 90.0) / 2)
    assert overall.core_seconds_before == pytest.approx(60.6)
    assert overall.joules is None


def test_tasks_without_measurements_are_refused() -> None:
    with pytest.raises(UsageError, match=r"the run of sst2 by sst2\.toml did not measure both 'teacher' and 'small"):
        table.task_rows([RUN, with_measurements(None)])
    with pytest.raises(UsageError, match="needs the run of one at least"):
        table.task_table([])


def test_the_command_puts_saved_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.load(summary.save(RUN, tmp_path).parent) == RUN
    assert cli.main(["study", "table", str(tmp_path), str(tmp_path), "--markdown"]) == 0
    assert capsys.readouterr().out == "\n".join(markdown.lines(table.task_table([RUN, RUN]))) + "\n"
    assert cli.main(["study", "table", str(tmp_path / "gone")]) == 3
    assert "`ffc study run` makes one" in capsys.readouterr().err


def test_markdown_and_text_show_the_chosen_row_and_align_numbers() -> None:
    shown = table.method_table(RUN)
    lines = markdown.lines(shown)
    assert lines[1] == "| :-- | --: | --: | --: | --: | --: | --: | --: |"
    assert [line.split(" | ")[0] for line in lines if line.startswith("| **")] == [
        "| **+ pruned to 67% of heads, 50% of units (third)**"
    ]
    text = terminal.text(shown).splitlines()
    assert text[2].split() == ["PyTorch", "out", "of", "the", "box", "6.00", "60.0", "1.00×", "91.00", "60.6", "150"]
    assert len({len(line) for line in text[:6]}) == 1
    assert max(map(len, text[12:])) <= 110


def test_uneven_layers_show_as_a_range() -> None:
    uneven = dataclasses.replace(RUN.systems[3], heads=(4, 9, 12), units=(300, 300, 300))
    shown = table.system_table(dataclasses.replace(RUN, systems=(*RUN.systems[:3], uneven, *RUN.systems[4:])))
    assert shown.rows[3][1:3] == ("3 × 4–12", "3 × 300")
    assert shown.bold == {3}


def test_what_was_not_compiled_is_marked(tmp_path: Path) -> None:
    chosen = RUN.system(RUN.chosen)
    systems = tuple(dataclasses.replace(each, refused="int8: no") if each == chosen else each for each in RUN.systems)
    run = dataclasses.replace(RUN, systems=systems)
    (row,) = [row for row in table.method_rows(run) if row.system == chosen.name]
    assert row.method.endswith(", not compiled")
    assert ", as exported;" in dict(page._facts(run))["accuracy"]


@pytest.fixture(scope="module")
def pictures() -> tuple[bytes, bytes]:
    return plots.sizes(RUN), plots.throughput(RUN)


def test_plots_are_pictures_of_a_fixed_size(pictures: tuple[bytes, bytes]) -> None:
    for png in pictures:
        assert png.startswith(b"\x89PNG\r\n")
        assert (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")) == (1080, 690)


def test_a_name_is_no_formula() -> None:
    plots.sizes(dataclasses.replace(RUN, task=dataclasses.replace(RUN.task, name="a|b <i>$x_{$")))


def test_labels_hide_neither_each_other_nor_points(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    real = plots._finished
    monkeypatch.setattr(plots, "_finished", lambda figure, *rest: drawn.append(figure) or real(figure, *rest))
    plots.sizes(RUN)
    plots.throughput(RUN)
    for figure in drawn:
        (axes,) = figure.axes
        boxes = [plots._text_box(figure, text) for text in axes.texts]
        assert len(boxes) >= 7
        assert not any(one.overlaps(other) for index, one in enumerate(boxes) for other in boxes[:index])
        points = [
            axes.transData.transform(line.get_xydata()) for line in axes.get_lines() if line.get_marker() in "os^D"
        ]
        assert not any(box.contains(x, y) for box in boxes for line in points for x, y in line)
        words = [text.get_text() for text in axes.texts]
        assert "small" in words


def test_plots_without_measurements_or_matplotlib_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"the run of sst2\.toml measured nothing"):
        plots.sizes(with_measurements(None))
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(
        MissingError, match=r"plots need matplotlib; install it with pip install 'fastformers-compiler\[train\]'"
    ):
        plots.throughput(RUN)


def test_the_page_holds_all_and_needs_nothing_else(tmp_path: Path) -> None:
    run = dataclasses.replace(RUN, reason="<script>alert(1)</script> & more")
    path = page.write(run, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["report.html", "sizes.png", "throughput.png"]
    assert text.count('src="data:image/png;base64,') == 2
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert "0 throughout" in text
    assert "Example CPU at 2.5 GHz (avx2 fma), 4 cores, onnxruntime 1.32.0, torch 2.13.0" in text
    assert text.count("<table>") == 3


def test_seeds_that_differ_are_told_apart(tmp_path: Path, pictures: tuple[bytes, bytes]) -> None:
    other = dataclasses.replace(RUN.systems[1], seed=7)
    text = page.to_html(dataclasses.replace(RUN, systems=(RUN.systems[0], other, *RUN.systems[2:])), pictures)
    assert "7 (small)" in text


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write the report to"):
        page.write(RUN, tmp_path / "no")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser")
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    path = page.write(RUN, tmp_path)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    done = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.count("<img ") == 2
    assert "+ distilled to small" in done.stdout
