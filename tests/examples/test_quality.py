"""The checks of examples/quality: what they find in runs, and the studies that they are for."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ffc.study import study, workflow
from ffc.study.report import summary
from ffc.study.report.summary import COMPILED, EAGER, FP32, PADDED, Measurements, System
from tests import checkout
from tests.study import made_up

FOLDER = checkout.EXAMPLES / "quality"
RIGHT = {
    "teacher": 180, "distilled-0": 178, "distilled-1": 177, "distilled-2": 179, "labels-0": 176, "labels-1": 178,
    "labels-2": 177, "relu": 176, "distilled-0+quarter": 178, "distilled-0+third": 177, "distilled-0+half": 170,
    "distilled-0+taylor-50": 160, "distilled-0+random-50-0": 150, "distilled-0+random-50-1": 140,
    "distilled-0+random-50-2": 130, "teacher+search-70": 179,
}  # fmt: skip
"""Of 200 rows, how many each system of the study decides rightly."""


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    return checkout.load("quality/checks")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder with a made-up run of the study on SST-2: the first so many rows are decided rightly."""
    folder = tmp_path / "sst2"
    labels = np.arange(200) % 2
    systems = []
    for name, right in RIGHT.items():
        decided = np.where(np.arange(200) < right, labels, 1 - labels)
        logits = np.eye(2, dtype=np.float32)[decided]
        place = folder / "systems" / name / "evaluate"
        place.mkdir(parents=True)
        np.savez(place / "logits.npz", fp32=logits, compiled=logits, labels=labels)
        made = made_up.system(name, 3, 12, 1536, right / 2, right / 2)
        systems.append(dataclasses.replace(made, seconds={"plan": 100.0}))
    run = dataclasses.replace(
        made_up.RUN, systems=tuple(systems), chosen="distilled-0+third", measurements=measured(systems)
    )
    summary.save(run, folder)
    return tmp_path


def measured(systems: list[System]) -> Measurements:
    ways = {name: made_up.measured(1.0) for name in (PADDED, EAGER, FP32, COMPILED)}
    return dataclasses.replace(made_up.MEASUREMENTS, systems={each.name: ways for each in systems})


def test_checks_compare_with_what_must_hold(checks: ModuleType, runs: Path) -> None:
    found = {each.check: each for each in checks.judge(runs)[1]}
    values = {check: (round(each.found, 3), each.verdict.strip("*")) for check, each in found.items()}
    assert values == {
        "sst2: teacher, accuracy": (90.0, "holds"),
        "3 layers: distilled − labels alone, mean of 3 seeds, points": (0.5, "holds"),
        "3 layers, distilled: % of the teacher, mean of 3 seeds": (98.889, "holds"),
        "ReLU for GELU, points lost": (1.0, "missed"),
        "25 % of heads, 25 % of units pruned, points lost": (0.0, "holds"),
        "33 % of heads, 50 % of units pruned, points lost": (0.5, "holds"),
        "50 % of heads, 75 % of units pruned, points lost": (4.0, "missed"),
        "50 % of heads, 50 % of units, not trained again: importance − random, mean of 3 plans, points": (10.0, "holds"),
        "Fisher search and scales, 70 % of MACs, points lost": (0.5, "holds"),
        "Fisher search and scales, seconds": (100.0, "holds"),
        "all together: 3 layers, 33 %/50 % pruned, int8, points lost": (1.5, "holds"),
    }
    assert "accuracy 90.00, the commonest label 50.00" in found["sst2: teacher, accuracy"].details
    # 8 rows of 200 decided otherwise, all for the worse: p = 0.04, standard error √(p (1 − p) / 199).
    assert found["50 % of heads, 75 % of units pruned, points lost"].half_width == pytest.approx(
        196 * np.sqrt(0.04 * 0.96 / 199)
    )


def test_the_study_is_held_to_its_time(checks: ModuleType, runs: Path) -> None:
    (runs / "study").mkdir()
    summary.save(dataclasses.replace(made_up.RUN, seconds=91.5 * 60), runs / "study")
    studies, findings = checks.judge(runs)
    assert [each.folder.name for each in studies] == ["sst2"], "it is no task of its own"
    assert findings[-1].check == "examples/studies/sst2.toml, minutes"
    assert (findings[-1].found, findings[-1].verdict.strip("*")) == (pytest.approx(91.5), "missed")


def test_the_page_and_the_record_are_written(
    checks: ModuleType, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["checks.py", str(runs), "--out", str(tmp_path / "out")])
    checks.main()
    record = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert record["format"] == "ffc.quality/1"
    assert [each["verdict"] for each in record["findings"]].count("missed") == 2
    assert record["runs"][0]["machine"]["processor"] == made_up.MACHINE.processor
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| ReLU for GELU, points lost | ≤ 0.5 | 1.00 | 1.38 | **missed** | 89.00 → 88.00 |" in page
    assert "## Tasks" in page
    assert "; seeds 0 (teacher, distilled-0" in page and record["time"] in page
    assert page.strip() in capsys.readouterr().out


def test_a_folder_without_runs_is_refused(checks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["checks.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="no run in"):
        checks.main()


def test_the_study_makes_all_that_is_judged() -> None:
    made = workflow.workflow(study.load(FOLDER / "sst2.toml"))
    assert {each.name for each in made.systems} == set(RIGHT)


@pytest.mark.parametrize("path", sorted((checkout.EXAMPLES / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_the_studies_are_sound(path: Path, tmp_path: Path) -> None:
    copied = tmp_path / "examples" / "studies" / path.name
    copied.parent.mkdir(parents=True)
    copied.write_bytes(path.read_bytes())
    start = tmp_path / "build" / "rte-start"  # what rte.toml starts from, made by a script that trains
    start.mkdir(parents=True)
    (start / "config.json").write_text("{}")
    made = workflow.workflow(study.load(copied))
    assert {each.kind for each in made.systems} == {"teacher", "student", "pruned"}
