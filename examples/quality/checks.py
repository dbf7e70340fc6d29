"""Judge what the studies of this folder found by the checks that they were made for, as JSON and as a page."""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ffc.study.report import summary, table

SST2 = "sst2"
"""The study that most checks are of."""

RTE = "rte"
"""The study whose teacher does not start from the bare checkpoint."""

TIMED = "study"
"""The run of examples/studies/sst2.toml, whose time is judged."""

SEEDS = range(3)
Correct = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Bound:
    """What a number must be: at least, or at most, `value`."""

    value: float
    least: bool

    def holds(self, found: float) -> bool:
        """Return whether `found` is as it must be."""
        return found >= self.value if self.least else found <= self.value

    def __str__(self) -> str:
        """Say it with a sign."""
        return f"{'≥' if self.least else '≤'} {self.value:g}"


@dataclass(frozen=True)
class Finding:
    """One line of the page.

    Attributes:
        check: What was checked.
        must: What the number must be, or None where it is only reported.
        found: The number: points, percent or seconds, as the check says.
        half_width: Of the 95 % interval of a difference on the same rows, in points; None where there is none.
        details: The numbers behind it.
    """

    check: str
    must: Bound | None
    found: float
    half_width: float | None = None
    details: str = ""

    @property
    def verdict(self) -> str:
        """Whether it holds."""
        if self.must is None:
            return "reported"
        return "holds" if self.must.holds(self.found) else "**missed**"


@dataclass(frozen=True)
class Study:
    """A finished run.

    Attributes:
        folder: Its folder.
        run: What it found.
    """

    folder: Path
    run: summary.Run

    @classmethod
    def load(cls, folder: Path) -> Study:
        """Read the run in a folder."""
        return cls(folder, summary.load(folder))

    def accuracy(self, name: str, form: str = "fp32") -> float:
        """Return the main score of a system, in percent."""
        system = self.run.system(name)
        return (system.fp32 if form == "fp32" else system.compiled).accuracy

    def correct(self, name: str, form: str = "fp32") -> Correct:
        """Return which validation rows a system decides rightly."""
        with np.load(self.folder / "systems" / name / "evaluate" / "logits.npz") as archive:
            right: Correct = archive[form].argmax(axis=1) == archive["labels"]
        return right

    def commonest(self) -> float:
        """Return which share of the validation rows has the most frequent label, in percent."""
        with np.load(self.folder / "systems" / "teacher" / "evaluate" / "logits.npz") as archive:
            return 100 * float(np.bincount(archive["labels"]).max() / len(archive["labels"]))

    def lost(self, before: tuple[str, str], after: tuple[str, str]) -> tuple[float, float]:
        """Return the points lost from one system and form to another on the same rows, and the half-width of that.

        The interval is that of the mean of paired differences, 1.96 standard errors to either side.
        """
        change = self.correct(*before).astype(float) - self.correct(*after)
        return 100 * change.mean(), 196 * change.std(ddof=1) / math.sqrt(len(change))


def teacher(study: Study, least: float | None) -> Finding:
    """Judge a teacher by its score; where that is an accuracy, tell what always one label would come to."""
    task, name = study.run.task, study.folder.name
    parts = study.run.system("teacher").fp32.parts
    told = [f"{part} {value:.2f}" for part, value in parts.items()]
    told += [f"the commonest label {study.commonest():.2f}"] * ("accuracy" in parts)
    rows = f"{task.train_rows:,} rows to train on, {task.validation_rows:,} to score ({', '.join(told)})"
    must = None if least is None else Bound(least, least=True)
    return Finding(f"{name}: teacher, {task.metric}", must, study.accuracy("teacher"), details=rows)


def students(study: Study) -> Iterator[Finding]:
    """Judge students that learned from the teacher against those that learned from the labels alone."""
    distilled, labels = ([study.accuracy(f"{kind}-{seed}") for seed in SEEDS] for kind in ("distilled", "labels"))
    both = f"distilled {_listed(distilled)}; labels alone {_listed(labels)}"
    better = statistics.fmean(distilled) - statistics.fmean(labels)
    yield Finding(
        "3 layers: distilled − labels alone, mean of 3 seeds, points", Bound(0, least=True), better, details=both
    )
    share = 100 * statistics.fmean(distilled) / study.accuracy("teacher")
    yield Finding("3 layers, distilled: % of the teacher, mean of 3 seeds", Bound(97, least=True), share)


def losses(study: Study) -> Iterator[Finding]:
    """Judge what activation and pruning take from the student, distilled again."""
    for check, system, most in (
        ("ReLU for GELU, points lost", "relu", 0.5),
        ("25 % of heads, 25 % of units pruned, points lost", "distilled-0+quarter", 0.7),
        ("33 % of heads, 50 % of units pruned, points lost", "distilled-0+third", 1.5),
        ("50 % of heads, 75 % of units pruned, points lost", "distilled-0+half", 3.5),
    ):
        yield _loss(study, check, ("distilled-0", "fp32"), (system, "fp32"), most)


def untrained(study: Study) -> Iterator[Finding]:
    """Judge pruning without training again."""
    random = [study.accuracy(f"distilled-0+random-50-{seed}") for seed in SEEDS]
    scored = study.accuracy("distilled-0+taylor-50")
    yield Finding(
        "50 % of heads, 50 % of units, not trained again: importance − random, mean of 3 plans, points",
        Bound(3, least=True),
        scored - statistics.fmean(random),
        details=f"importance {scored:.2f}; random {_listed(random)}",
    )
    yield _loss(
        study,
        "Fisher search and scales, 70 % of MACs, points lost",
        ("teacher", "fp32"),
        ("teacher+search-70", "fp32"),
        1.5,
    )
    seconds = study.run.system("teacher+search-70").seconds["plan"]
    yield Finding("Fisher search and scales, seconds", Bound(300, least=False), seconds)


def together(study: Study) -> Finding:
    """Judge all of it against the teacher in fp32."""
    before, after = ("teacher", "fp32"), ("distilled-0+third", "compiled")
    others = {each.name for each in study.run.systems if each.kind == "pruned" and each.name != after[0]}
    steps = [row for row in table.method_rows(study.run) if row.total is not None and row.system not in others]
    speed = ", ".join(f"{row.method} {row.total:.1f}×" for row in steps)
    found = _loss(study, "all together: 3 layers, 33 %/50 % pruned, int8, points lost", before, after, 2.5)
    return Finding(found.check, found.must, found.found, found.half_width, f"{found.details}; {speed}")


def duration(study: Study) -> Finding:
    """Judge how long a study takes from data to the compiled model."""
    details = f"chosen: {study.run.chosen}, {study.accuracy(study.run.chosen, 'compiled'):.2f}; {study.run.machine}"
    minutes = study.run.seconds / 60
    return Finding("examples/studies/sst2.toml, minutes", Bound(90, least=False), minutes, details=details)


TEACHERS: dict[str, float | None] = {
    SST2: 88.0,
    RTE: 60,
    "wic": 56,
    "cb": 68,
    "copa": None,
    "boolq": None,
    "multirc": None,
}
"""The least that the teacher of a study must reach; None where it is only reported."""

CHECKS: Sequence[Callable[[Study], Iterator[Finding]]] = (students, losses, untrained)


def judge(folder: Path) -> tuple[list[Study], list[Finding]]:
    """Return the studies whose runs lie in `folder`, and what they show."""
    names = [name for name in (*TEACHERS, TIMED) if (folder / name / summary.NAME).is_file()]
    studies = {name: Study.load(folder / name) for name in names}
    timed = studies.pop(TIMED, None)
    findings = [teacher(study, TEACHERS[name]) for name, study in studies.items()]
    if SST2 in studies:
        findings += [each for check in CHECKS for each in check(studies[SST2])]
        findings.append(together(studies[SST2]))
    if timed:
        findings.append(duration(timed))
    return list(studies.values()), findings


def page(studies: Sequence[Study], findings: Sequence[Finding], time: str) -> str:
    """Lay everything out in Markdown."""
    lines = ["# What training, distillation and pruning cost and keep", ""]
    lines += [f"Written by `checks.py` at {time}; do not edit.", ""]
    lines += ["| check | must | found | ± 95 % | | details |", "| --- | --: | --: | --: | --- | --- |"]
    for each in findings:
        width = "" if each.half_width is None else f"{each.half_width:.2f}"
        cells = (each.check, "" if each.must is None else str(each.must), f"{each.found:.2f}", width, each.verdict)
        lines.append(f"| {' | '.join(cells)} | {each.details} |")
    lines += [
        "",
        "Differences are of the same validation rows; ± is the half-width of the 95 % interval of their mean.",
        "",
    ]
    if any(study.folder.name == RTE for study in studies):
        lines += ["The teacher of `rte` starts from what `examples/studies/rte_start.py` made of MiniLM.", ""]
    lines += ["## Tasks", "", table.task_table([study.run for study in studies]).to_markdown()]
    for study in studies:
        lines += [
            f"## {study.folder.name}",
            "",
            f"{study.run.machine}; all steps {study.run.seconds / 60:.0f} minutes; seeds {_seeds(study.run)}.",
            "",
        ]
        lines += [f"Chosen: {study.run.chosen}, {study.run.reason}.", ""]
        lines += [table.method_table(study.run).to_markdown(), table.system_table(study.run).to_markdown()]
    return "\n".join(lines)


def _loss(study: Study, check: str, before: tuple[str, str], after: tuple[str, str], most: float) -> Finding:
    lost, width = study.lost(before, after)
    details = f"{study.accuracy(*before):.2f} → {study.accuracy(*after):.2f}"
    return Finding(check, Bound(most, least=False), lost, width, details)


def _seeds(run: summary.Run) -> str:
    """Return the seed of each system's training, those of one seed together."""
    systems: dict[int, list[str]] = {}
    for system in run.systems:
        systems.setdefault(system.seed, []).append(system.name)
    return "; ".join(f"{seed} ({', '.join(names)})" for seed, names in sorted(systems.items()))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def main() -> None:
    """Judge the runs in a folder and write both files."""
    here = Path(__file__).parent / "results"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="the folder of runs, each in a folder named like its study")
    parser.add_argument("--out", type=Path, default=here, help="where quality.json and README.md go")
    given = parser.parse_args()
    studies, findings = judge(given.runs)
    if not studies:
        raise SystemExit(f"no run in {given.runs}; make one with ffc study run examples/quality/sst2.toml")
    time = datetime.now(UTC).isoformat(timespec="seconds")
    written = page(studies, findings, time)
    record = {
        "format": "ffc.quality/1",
        "time": time,
        "findings": [{**asdict(each), "verdict": each.verdict.strip("*")} for each in findings],
        "runs": [asdict(study.run) for study in studies],
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "quality.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (given.out / "README.md").write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
