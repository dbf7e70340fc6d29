"""``ffc train``, ``ffc distill`` and ``ffc export``, from rows to files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest

from ffc import cli
from ffc.commands.training import distill
from ffc.pruning import LayerPlan, Plan
from ffc.settings.losses import ON_A_TASK, Losses
from tests.train import tiny

if TYPE_CHECKING:
    from ffc.train.tasks import Task

Command = Callable[..., tuple[int, str, str]]
FAST = ["--learning-rate", "3e-3", "--batch-size", "16"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``ffc`` in this process; return its exit code, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([str(each) for each in arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder ``tiny``, rows, and a classifier ``teacher`` that has learned them."""
    folder = tmp_path_factory.mktemp("commands")
    tiny.save_model(folder / "tiny")
    tiny.save_rows(folder / "train.tsv", 160, seed=1)
    tiny.save_rows(folder / "val.tsv", 40, seed=2)
    arguments = ["train", "--model", folder / "tiny", *rows(folder), *FAST, "--epochs", "8", "-o", folder / "teacher"]
    assert cli.main([str(each) for each in arguments]) == 0
    return folder


def rows(folder: Path) -> list[str]:
    train, validation = str(folder / "train.tsv"), str(folder / "val.tsv")
    return ["--task", "text", "--train", train, "--validation", validation, "--text", "text"]


def score(folder: Path) -> float:
    return float(json.loads((folder / "scores.json").read_text())["score"])


def test_training_learns_and_keeps_the_best_epoch(place: Path) -> None:
    found = json.loads((place / "teacher" / "scores.json").read_text())
    assert found["score"] == max(found["epochs"]) >= 90
    assert (found["metric"], found["train_rows"], found["validation_rows"]) == ("accuracy", 160, 40)
    assert found["training"]["learning_rate"] == 3e-3
    assert found["losses"]["labels"] == 1.0


def test_the_work_folder_is_gone_in_the_end(place: Path) -> None:
    assert not [each.name for each in place.iterdir() if each.name.startswith(".")]


def test_layers_of_the_teacher_are_distilled(
    place: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[tuple[object, ...]] = []

    def export(model: Any, path: Path, *, task: Task, tokenizer: Any, provenance: Mapping[str, str]) -> None:
        exported.append((len(model.bert.encoder.layer), path, task.labels, len(tokenizer), dict(provenance)))

    monkeypatch.setattr("ffc.train.export.export", export)  # which takes seconds; `ffc export` is tried below
    student, onnx = tmp_path / "student", tmp_path / "student.onnx"
    given = ["--teacher", place / "teacher", "--layers", "0,2", *rows(place), *FAST, "--epochs", "4"]
    code, out, err = command("distill", *given, "-o", student, "--onnx", onnx)
    assert code == 0, err
    assert score(student) >= 85
    assert out == f"text: {score(student):.2f} on 40 rows; wrote {student} and {onnx}\n"
    assert "160 rows to train on, 40 to validate" in err
    assert json.loads((student / "config.json").read_text())["num_hidden_layers"] == 2
    made = {"teacher": str(place / "teacher"), "student": "layers 0,2"}
    assert exported == [(2, onnx, ("negative", "positive"), len(tiny.WORDS) + 5, made)]


def test_a_pruned_student_learns_from_its_unpruned_teacher(place: Path, tmp_path: Path, command: Command) -> None:
    plan = tmp_path / "plan.json"
    Plan(layers=[LayerPlan(heads=[0, 1], units=range(24))] * 3).save(plan)
    code, out, err = command(
        "distill", "--teacher", place / "teacher", "--plan", plan, "--loss", "logits=1", *rows(place), *FAST,
        "--epochs", "3", "-o", tmp_path / "pruned", "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert found["losses"]["logits"] == 1.0
    assert found["losses"]["hidden"] == 0.0
    assert found["score"] == score(tmp_path / "pruned") >= 80
    layer = json.loads((tmp_path / "pruned" / "ffc.json").read_text())["layers"][0]
    assert (layer["heads"], layer["units"]) == (2, 24)


def test_gelu_goes_over_to_relu(place: Path, tmp_path: Path, command: Command) -> None:
    given = ["distill", "--teacher", place / "teacher", "--layers", "1", *rows(place), "--max-steps", "4"]
    code, _, err = command(*given, "--activation", "relu", "--anneal", "0.5", "-o", tmp_path / "relu")
    assert code == 0, err
    assert json.loads((tmp_path / "relu" / "config.json").read_text())["hidden_act"] == "relu"


def test_distilling_on_plain_text_gives_a_start_for_training(place: Path, tmp_path: Path, command: Command) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a good film\nthe very bad day was it\n" * 20, encoding="utf-8")
    code, out, err = command(
        "distill", "--teacher", place / "tiny", "--layers", "2", "--texts", texts, "--max-length", "16",
        "-o", tmp_path / "general",
    )  # fmt: skip
    assert code == 0, err
    assert out.startswith("loss ")
    code, _, err = command(
        "train", "--model", tmp_path / "general", *rows(place), "--max-steps", "2", "-o", tmp_path / "tuned"
    )
    assert code == 0, err
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["num_hidden_layers"] == 2


def test_a_saved_model_is_exported(place: Path, tmp_path: Path, command: Command) -> None:
    code, out, err = command("export", place / "teacher", "-o", tmp_path / "teacher.onnx")
    assert code == 0, err
    assert out.startswith(f"wrote {tmp_path / 'teacher.onnx'}: ")
    session = ort.InferenceSession(str(tmp_path / "teacher.onnx"))
    metadata = session.get_modelmeta().custom_metadata_map
    assert (metadata["ffc.task"], json.loads(metadata["ffc.labels"])) == ("text", ["negative", "positive"])
    names = [each.name for each in session.get_inputs()]
    assert session.run(None, {name: np.ones((1, 4), np.int64) for name in names})[0].shape == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--layers 3 --student tiny", 2, "ffc distill needs one student, by --layers, --student or --plan; --layers and --student name several"),
        ("", 2, "ffc distill needs one student, by --layers, --student or --plan; none is named"),
        ("--layers 2 --anneal 0.5", 2, "--anneal is for a change of activation; give --activation too"),
        ("--layers two", 2, "--layers is 'two'; give a number of layers such as 3, or layers such as 0,2,4"),
        ("--layers 7", 2, "7 layers cannot be spread over a teacher's 3; give 1 to 3"),
        ("--layers 2 --loss logit=1", 2, "unknown loss 'logit'; did you mean 'logits'?"),
        ("--layers 2 --loss logits=much", 2, "--loss logits is 'much', wanted a number from 0, such as logits=1"),
        ("--layers 2 --layer-map 0-1", 2, "--layer-map is '0-1'; give pairs of a student's and a teacher's layer such as 0:1,1:3"),
        ("--layers 2 --texts val.tsv", 2, "--texts distils for no task; leave out --texts or --task"),
        ("--layers 2 --batch-size 0", 2, "invalid value for '--batch-size': '0', wanted a whole number from 1"),
        ("--plan missing.json", 3, "cannot read missing.json: No such file or directory; `ffc plan` makes one"),
        ("--student other", 2, "the student 'other' makes tokens otherwise than the teacher 'teacher'"),
        ("--layers 2 --label tone", 3, "tone"),
        ("--layers 2 -o teacher", 2, "the output 'teacher' is an input; name another folder with -o"),
        ("--layers 2 -o no/where", 2, "the folder 'no' of the output does not exist; create it first"),
        ("--layers 2 -o /proc/student", 2, "cannot write in the folder '/proc'; name another place with -o"),
        ("--layers 2 --onnx train.tsv", 2, "the output 'train.tsv' is an input; name another file"),
        ("--layers 2 --onnx teacher/model.safetensors", 2, "the output 'teacher/model.safetensors' is an input; name another file"),
        ("--layers 2 --onnx teacher", 2, "the output 'teacher' is a folder; name a file with --onnx"),
        ("--layers 2 -o val.tsv", 2, "the output 'val.tsv' is a file; name a folder with -o"),
        ("--layers 2 --teacher tiny", 2, "the model 'tiny' "),
        ("--layers 2 --teacher gone", 3, "there is no model"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(
    arguments: str, code: int, message: str, place: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    if "--student other" in arguments:
        tiny.save_model(Path("other"), words=tiny.WORDS[::-1])
    found, out, err = command("distill", "--teacher", "teacher", *rows(Path()), "-o", "student", *arguments.split())
    assert (found, out) == (code, ""), err
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("ffc: error: ")
    assert not Path("student").exists()


def test_an_option_of_a_task_is_refused_on_plain_text(place: Path, command: Command) -> None:
    arguments = ["--layers", "1", "--texts", place / "train.tsv", "--rows", "5", "-o", place / "student"]
    code, _, err = command("distill", "--teacher", place / "teacher", *arguments)
    assert (code, err) == (2, "ffc: error: --texts distils for no task; leave out --texts or --rows\n")


def test_the_current_folder_can_be_the_output(
    place: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, _, err = command("train", "--model", place / "teacher", *rows(place), "--max-steps", "1", "-o", ".")
    assert code == 0, err
    assert Path("model.safetensors").is_file() and not list(tmp_path.glob(".*"))


def test_an_export_goes_over_no_file_of_the_model(place: Path, command: Command) -> None:
    weights = place / "teacher" / "model.safetensors"
    before = weights.read_bytes()
    code, _, err = command("export", place / "teacher", "-o", weights)
    assert (code, weights.read_bytes()) == (2, before)
    assert err == f"ffc: error: the output '{weights}' is an input; name another file\n"


def test_an_export_goes_to_standard_output_and_through_links(
    place: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert cli.main(["export", str(place / "teacher"), "-o", "-"]) == 0
    told = capsysbinary.readouterr()
    assert told.err.endswith(b"wrote -\n")
    (tmp_path / "link.onnx").symlink_to("real.onnx")
    arguments = ["train", "--model", str(place / "teacher"), *rows(place), "--max-steps", "1"]
    arguments += ["-o", str(tmp_path / "new"), "--onnx"]
    assert cli.main([*arguments, str(tmp_path / "link.onnx")]) == 0
    assert (tmp_path / "link.onnx").is_symlink()
    capsysbinary.readouterr()
    assert cli.main([*arguments, "-"]) == 0
    again = capsysbinary.readouterr()
    assert f"wrote {tmp_path / 'new'} and -\n".encode() in again.err
    for content in (told.out, (tmp_path / "real.onnx").read_bytes(), again.out):
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        assert [each.name for each in session.get_outputs()] == ["logits"]


def test_losses_that_are_named_leave_out_all_others() -> None:
    assert distill.read_losses((), "0:1", ON_A_TASK) == replace(ON_A_TASK, layers=((0, 1),))
    assert distill.read_losses(["hidden=1", "relation_heads=4"], None, ON_A_TASK) == Losses(hidden=1.0, relation_heads=4)


def test_help_imports_nothing_heavy_and_missing_libraries_are_named() -> None:
    code = """
import sys
from ffc import cli
assert cli.main(["train", "--help"]) == cli.main(["distill", "--help"]) == 0
heavy = {"torch", "transformers", "accelerate", "matplotlib", "numpy"} & set(sys.modules)
assert not heavy, heavy
sys.modules["torch"] = None
import importlib.util
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else "is there"
sys.exit(cli.main(["train", "--model", "m", "--task", "rte", "-o", "out"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert "torchrun --nproc-per-node 2 -m ffc distill" in done.stdout
    assert done.stderr == (
        "ffc: error: this needs torch; install it with pip install 'fastformers-compiler[train]'\n"
    )  # fmt: skip
