"""Studies run: a tiny one from rows to a compiled model, what a second run keeps, and plans of every kind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

from ffc import cli
from ffc.errors import InputError, UsageError
from ffc.pruning import Plan
from ffc.study import keys, outputs, running, steps, study, weights, workflow
from ffc.study.report import page, summary
from ffc.study.resources import Resources
from tests.train import tiny

STUDY = """
max_length = 16
seed = 1

[task]
name = "text"
train = "train.tsv"
validation = "dev.tsv"
text = "text"

[teacher]
model = "bert"
epochs = 6
learning_rate = 5e-3
batch_size = 8

[students.small]
layers = 1
epochs = 3
learning_rate = 5e-3
batch_size = 8
losses = { logits = 1.0, hidden = 0.1, temperature = 2.0 }

[plans.half]
heads = 0.5
ffn = 0.5
rows = 20
epochs = 1
learning_rate = 1e-3

[choose]
accuracy = 10

[report]
queries = 4
rounds = 1
"""
TITLES = [
    "data", "teacher: train", "teacher: export", "teacher: compile", "teacher: evaluate",
    "small: distil", "small: export", "small: compile", "small: evaluate",
    "small: score by taylor on 20 rows", "small+half: plan", "small+half: prune", "small+half: distil again",
    "small+half: export", "small+half: compile", "small+half: evaluate", "measure all systems",
]  # fmt: skip


class Quiet:
    """Is told how a run goes, and says nothing."""

    def begin(self, number: int, of: int, title: str) -> None:
        pass

    def tell(self, line: str, done: int = 0, total: int = 0, /) -> None:
        pass

    def end(self, seconds: float, *, kept: bool) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the current folder, with a study ``r.toml``, a model without a head, and rows."""
    place = tmp_path_factory.mktemp("study")
    tiny.save_model(place / "bert", layers=2)
    tiny.save_rows(place / "train.tsv", 64, 0)
    tiny.save_rows(place / "dev.tsv", 20, 1)
    (place / "r.toml").write_text(STUDY, encoding="utf-8")
    before = os.getcwd()
    os.chdir(place)
    yield place
    os.chdir(before)


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    """Return the folder of the run of the study."""
    running.run(study.load("r.toml"), Path("build/r"), Quiet())
    return Path("build/r")


@pytest.fixture
def changed(folder: Path) -> Callable[[str, str], study.Study]:
    """Return a function that reads the study with one text in place of another."""

    def change(before: str, after: str) -> study.Study:
        assert STUDY.count(before) == 1
        Path("changed.toml").write_text(STUDY.replace(before, after), encoding="utf-8")
        return study.load("changed.toml")

    return change


def test_a_run_says_what_it_made(made: Path) -> None:
    run = summary.load(made)
    assert [(each.name, each.kind) for each in run.systems] == [
        ("teacher", "teacher"), ("small", "student"), ("small+half", "pruned"),
    ]  # fmt: skip
    teacher, small, half = run.systems
    assert (teacher.heads, small.heads, half.heads) == ((4, 4), (4,), (2,))
    assert (teacher.units, small.units, half.units) == ((48, 48), (48,), (24,))
    assert teacher.fp32.accuracy >= 90
    assert small.fp32.accuracy >= 80
    assert (run.task.train_rows, run.task.validation_rows, run.task.labels) == (64, 20, ("negative", "positive"))
    assert half.compiled.macs < small.compiled.macs < teacher.compiled.macs
    assert half.compiled.bytes < small.compiled.bytes < teacher.compiled.bytes < teacher.fp32.bytes
    assert teacher.fp32.agreement == 1.0
    assert run.task.name == "r"
    assert {each.seed for each in run.systems} == {1}
    assert set(half.seconds) == {"plan", "prune", "distil", "export", "compile", "evaluate"}
    assert run.measurements is not None
    assert run.measurements.systems["teacher"]["padded"].seconds > 0


def test_the_accuracies_are_those_of_the_files(made: Path) -> None:
    run = summary.load(made)
    rows = [line.split("\t") for line in Path("dev.tsv").read_text().splitlines()[1:]]
    for system in run.systems:
        found = [answer(made / system.compiled.file, made / "tokenizer.json", text) for text, _ in rows]
        right = np.mean([run.task.labels[each] == label for each, (_, label) in zip(found, rows, strict=True)])
        assert system.compiled.accuracy == pytest.approx(100 * right)


def answer(model: Path, tokenizer: Path, text: str) -> int:
    """Return the label that a compiled model gives to a text, in stock onnxruntime."""
    session = ort.InferenceSession(str(model))
    ids = Tokenizer.from_file(str(tokenizer)).encode(text).ids[:16]
    feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
    return int(session.run(None, feeds)[0].argmax())


def test_the_smallest_within_the_budget_lies_at_the_top(made: Path) -> None:
    run = summary.load(made)
    within = [each for each in run.systems if run.systems[0].fp32.accuracy - each.compiled.accuracy <= 10]
    assert run.chosen == min(within, key=lambda each: each.compiled.bytes).name
    chosen = run.system(run.chosen)
    assert (made / "model.onnx").read_bytes() == (made / chosen.compiled.file).read_bytes()
    assert (made / "report.html").stat().st_size > 1000
    assert json.loads((made / "compile.json").read_text())["format"] == "ffc.report/2"


def test_nothing_in_a_run_names_the_machine_or_its_user(made: Path) -> None:
    text = (made / "run.json").read_text()
    assert str(Path.cwd()) not in text
    assert os.uname().nodename not in text


def test_a_second_run_keeps_all_steps(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (made / "run.json").read_text()
    monkeypatch.setattr(steps, "_do", None)  # which does what is not kept
    assert cli.main(["study", "run", "r.toml", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (made / "run.json").read_text() == before
    assert captured.err.splitlines() == [f"[{n}/17] {title}: kept" for n, title in enumerate(TITLES, 1)]


def titles(found: list[tuple[steps.Step, steps.State, float]], state: str) -> list[str]:
    return [step.title for step, has, _ in found if has == state]


@pytest.mark.parametrize(
    ("before", "after", "first"),
    [
        ("heads = 0.5", "heads = 0.25", "small+half: plan"),
        ("learning_rate = 1e-3", "learning_rate = 2e-3", "small+half: distil again"),
        ("temperature = 2.0", "temperature = 3.0", "small: distil"),
        ("epochs = 6", "epochs = 7", "teacher: train"),
        ("max_length = 16", "max_length = 12", "data"),
    ],
)
def test_a_changed_setting_redoes_what_depends_on_it(
    made: Path, changed: Callable[[str, str], study.Study], before: str, after: str, first: str
) -> None:
    found = running.states(changed(before, after), made)
    stale = titles(found, "stale")
    assert titles(found, "done") + stale == TITLES
    assert stale[0] == first


def test_another_pipeline_compiles_again_and_trains_nothing(
    made: Path, changed: Callable[[str, str], study.Study]
) -> None:
    stale = titles(running.states(changed("seed = 1", 'seed = 1\npasses = "fuse"'), made), "stale")
    again = [f"{name}: {what}" for name in ("teacher", "small", "small+half") for what in ("compile", "evaluate")]
    assert stale == [*again, "measure all systems"]


def test_a_changed_budget_or_price_redoes_nothing(made: Path, changed: Callable[[str, str], study.Study]) -> None:
    assert titles(running.states(changed("accuracy = 10", "accuracy = 1"), made), "done") == TITLES
    assert titles(running.states(changed("rounds = 1", "rounds = 1\ndollars_per_hour = 2"), made), "done") == TITLES


def test_another_row_redoes_all(made: Path) -> None:
    rows = Path("train.tsv").read_text()
    try:
        Path("train.tsv").write_text(rows + "a good day\tpositive\n")
        assert titles(running.states(study.load("r.toml"), made), "done") == []
    finally:
        Path("train.tsv").write_text(rows)


def test_show_lists_the_steps(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "show", "r.toml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(each["title"], each["state"]) for each in found["steps"]] == [(title, "done") for title in TITLES]
    assert cli.main(["study", "show", "r.toml", "-o", "elsewhere"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["step", "state", "seconds"]
    assert [line.split(maxsplit=1)[1].rstrip() for line in lines[1:]] == [f"{title:<33}  to do" for title in TITLES]
    assert not Path("elsewhere").exists()


def test_run_prints_the_table_and_the_choice(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page, "write", lambda run, folder: folder)  # which takes seconds, and is there already
    assert cli.main(["study", "run", "r.toml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("method ")
    run = summary.load(made)
    assert lines[-2:] == [f"chosen: {run.chosen}, {run.reason}", "build/r/model.onnx, build/r/report.html"]


def test_run_refuses_several_processes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["study", "run", "r.toml"]) == 2
    assert "ffc study runs in one process" in capsys.readouterr().err


def test_rows_longer_than_the_teacher_takes_are_refused(
    folder: Path, changed: Callable[[str, str], study.Study], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="teacher: train: rows of up to 41 tokens are more than the 40 that BertFor"):
        running.run(changed("max_length = 16", "max_length = 41"), tmp_path, Quiet())


def test_a_checkpoint_with_another_tokenizer_is_refused(made: Path, changed: Callable[[str, str], study.Study]) -> None:
    tiny.save_model(Path("other"), layers=1, words=[*tiny.WORDS, "more"])
    found = changed("layers = 1", 'model = "other"')
    copy = shutil.copytree(made, Path("build/copy"))
    with pytest.raises(InputError) as caught:
        running.run(found, copy, Quiet())
    assert str(caught.value) == (
        "small: distil: changed.toml:18: the student other makes tokens otherwise than the teacher bert and cannot learn "
        "from it; take a checkpoint with the same tokenizer"
    )
    # A mistake costs nothing that was made before: without it all is there.
    assert titles(running.states(study.load("r.toml"), copy), "done") == TITLES


def test_a_teacher_taken_as_it_is_wants_a_head(folder: Path, changed: Callable[[str, str], study.Study]) -> None:
    with pytest.raises(InputError) as caught:
        running.run(changed("epochs = 6", "epochs = 0"), Path("build/untrained"), Quiet())
    assert str(caught.value) == (
        "teacher: take: changed.toml:13: epochs = 0 takes bert as it is, and it has no head for the labels negative, "
        "positive; train it, with epochs = 3, say, or name a model that is trained"
    )


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("heads = 0.5\nffn = 0.5", "heads = 9", "24: layer 0: heads=9 cannot be kept, the layer has 4; give 1 to 4"),
        ("heads = 0.5\nffn = 0.5", "macs = 0.1", "24: macs=0.1 does not pay for what every layer keeps at least"),
        ("layers = 1", "layers = 3", "18: 3 layers cannot be spread over a teacher's 2; give 1 to 2"),
    ],
)
def test_what_students_cannot_keep_is_found_before_the_teacher_is_trained(
    before: str, after: str, line: str, folder: Path, changed: Callable[[str, str], study.Study]
) -> None:
    with pytest.raises(UsageError) as caught:
        running.run(changed(before, after), Path("build/never"), Quiet())
    assert str(caught.value).startswith(f"teacher: train: changed.toml:{line}")


def test_a_model_that_is_not_there(folder: Path, changed: Callable[[str, str], study.Study]) -> None:
    with pytest.raises(InputError, match=r"there is no model at \./nowhere"):
        workflow.workflow(changed('model = "bert"', 'model = "./nowhere"'))


@pytest.mark.parametrize(
    ("stated", "heads", "scaled"),
    [
        ({"heads": 2, "ffn": 0.25}, [2, 2], False),
        ({"heads": 0.5, "by": "fisher", "on": "model"}, [2, 2], False),
        ({"heads": 0.5, "ffn": 0.5, "by": "norm"}, [2, 2], False),
        ({"heads": 0.5, "by": "random"}, [2, 2], False),
        ({"heads": 0.5, "ffn": 0.5, "steps": 2}, [2, 2], False),
        ({"heads": 0.5, "ffn": 0.5, "allocate": "global"}, None, False),
        ({"macs": 0.5}, None, False),
        ({"macs": 0.5, "by": "search", "on": "model"}, None, True),
    ],
)
def test_plans_of_every_kind(folder: Path, stated: dict[str, Any], heads: list[int] | None, scaled: bool) -> None:
    from ffc.train.models import checkpoint, pretrained

    resources = Resources(study.load("r.toml"))
    base = folder / "base" / weights.MODEL
    if not base.exists():
        checkpoint.save_pruned(pretrained.classifier("bert", resources.task, seed=0), base, resources.tokenizer)
    wanted = keys.PlanKeys(**({} if stated.get("by") in ("norm", "random") else {"rows": 16}), **stated)
    done = {"base": steps.Done(folder / "base", "", 0.0, {})}
    scores = None
    if wanted.by in ("taylor", "fisher") and wanted.steps == 1:
        scores = "scores"
        done[scores] = work(partial(weights.score, resources, wanted, 0, "base"), folder / "scores", done)
    planned = work(partial(weights.plan, resources, wanted, 0, "base", scores), folder / "plan", done)
    plan = Plan.load(planned.folder / weights.PLAN)
    assert heads is None or [len(layer.heads or ()) for layer in plan.layers] == heads
    assert all(layer.fingerprints for layer in plan.layers)
    assert all((layer.head_scales is not None) == scaled for layer in plan.layers)
    assert plan.macs is not None
    assert plan.macs.kept <= plan.macs.of * (0.5 if "macs" in stated else 0.9)


def test_a_system_that_fails_a_contract_stays_as_it_was_exported(
    folder: Path, made: Path, changed: Callable[[str, str], study.Study]
) -> None:
    strict = changed("max_length = 16", "max_length = 16\noptions = { int8 = { cosine = 1.0 } }")
    exported = made / "systems" / "small" / "export"
    done = {"export": steps.Done(exported, "", 0.0, {}), "data": steps.Done(made / "data", "", 0.0, {})}
    kept = work(partial(outputs.compile, Resources(strict), "export", "data"), folder / "refused", done)
    assert kept.result["pipeline"] == "" and "int8" in kept.result["refused"]
    assert (kept.folder / weights.ONNX).read_bytes() == (exported / weights.ONNX).read_bytes()


def test_a_choice_that_was_not_compiled_ends_in_an_error_and_leaves_no_report_of_another(
    folder: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page, "write", lambda run, folder: folder)
    shutil.copytree(made, "strict")
    Path("strict.toml").write_text(f'passes = "fuse,int8{{cosine=0.99999999}}"\n{STUDY}', encoding="utf-8")
    assert (Path("strict") / "compile.html").exists()
    assert cli.main(["study", "run", "strict.toml", "-o", "strict"]) == 1
    told = capsys.readouterr()
    run = summary.load(Path("strict"))
    chosen = run.system(run.chosen)
    assert "so it is as exported" in run.reason and run.reason in told.out
    assert told.err.splitlines()[-1].startswith(f"ffc: error: {chosen.name}, which was chosen, could not be compiled: ")
    assert told.err.count("refused, so it stays as exported: ") == len(run.systems)
    assert not list(Path("strict").glob("compile.*"))
    assert Path("strict/model.onnx").read_bytes() == (Path("strict") / chosen.fp32.file).read_bytes()


def test_files_below_a_model_are_none_of_it(folder: Path, changed: Callable[[str, str], study.Study]) -> None:
    shutil.copytree("bert", "nest")
    planned = changed('model = "bert"', 'model = "nest"')
    before = running.states(planned, Path("nest/run"))[1][0].inputs
    Path("nest/run").mkdir()
    Path("nest/run/config.json").touch()
    Path("nest/teacher.onnx").touch()
    assert running.states(planned, Path("nest/run"))[1][0].inputs == before
    assert before.keys() > {"model config.json", "model model.safetensors", "model tokenizer.json"}


def test_training_that_ends_beyond_all_numbers_is_no_finished_step(
    folder: Path, changed: Callable[[str, str], study.Study]
) -> None:
    wild = changed("epochs = 6\nlearning_rate = 5e-3", "epochs = 6\nlearning_rate = 1e9")
    with pytest.raises(UsageError, match=r"teacher: train: .*give a lower learning_rate"):
        running.run(wild, Path("wild"), Quiet())


def work(does: steps.Work, folder: Path, done: dict[str, steps.Done]) -> steps.Done:
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    return steps.Done(folder, "", 0.0, dict(does(steps.Job(folder, folder / "scratch", done, Quiet().tell))))
