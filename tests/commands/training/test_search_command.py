"""``ffc search``: what a checkpoint can spare without being trained again, on training rows of its task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ffc import cli
from ffc.pruning import Plan
from tests.train import tiny

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows and a classifier ``teacher`` that has learned them."""
    folder = tmp_path_factory.mktemp("search")
    tiny.save_model(folder / "tiny")
    train, validation = (
        tiny.save_rows(folder / "train.tsv", 160, seed=1),
        tiny.save_rows(folder / "val.tsv", 40, seed=2),
    )
    words = ["train", "--model", str(folder / "tiny"), *task(train), "--validation", str(validation)]
    words += ["--learning-rate", "3e-3", "--batch-size", "16", "--epochs", "8", "-o", str(folder / "teacher")]
    assert cli.main(words) == 0
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def task(train: Path) -> list[str]:
    return ["--task", "text", "--train", str(train), "--text", "text"]


def test_what_is_kept_costs_what_was_asked_and_still_knows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher, rows = str(place / "teacher"), task(place / "train.tsv")
    capsys.readouterr()
    assert cli.main(["search", teacher, "--macs", "0.6", *rows, "--rows", "100", "--json"]) == 0
    told = capsys.readouterr()
    plan = Plan.load("plan.json")
    assert told.out == Path("plan.json").read_text(encoding="utf-8")
    assert plan.macs is not None and 0.5 < plan.macs.kept / plan.macs.of <= 0.6
    assert all(layer.head_scales and layer.unit_scales and layer.fingerprints for layer in plan.layers)
    assert "3 of 3 layers with scales" in told.err and told.err.splitlines()[-1].startswith("100 rows in ")
    assert accuracy(place, plan) >= 85


def accuracy(place: Path, plan: Plan) -> float:
    """Return how many validation rows of a hundred the teacher still knows, cut down to a plan."""
    from ffc.train.encoding import Collator, encode
    from ffc.train.evaluate import predict
    from ffc.train.models import pretrained, slicing
    from ffc.train.models.loading import load

    tokenizer = pretrained.tokenizer(place / "teacher")
    found = tiny.load("text", train=place / "train.tsv", validation=place / "val.tsv", text=["text"])
    rows = encode(found.validation, tokenizer, 128)
    logits = predict(slicing.apply(load(place / "teacher"), plan), rows, Collator(tokenizer))
    return 100 * float(np.mean(logits.argmax(1) == [row.label for row in found.validation]))


def test_the_same_seed_draws_the_same_rows(place: Path) -> None:
    words = ["search", str(place / "teacher"), "--macs", "0.6", *task(place / "train.tsv"), "--rows", "30"]
    for name, seed in (("one", "1"), ("again", "1"), ("other", "2")):
        assert cli.main([*words, "--seed", seed, "-o", f"{name}.json"]) == 0
    one, again, other = (Path(f"{name}.json").read_text() for name in ("one", "again", "other"))
    assert one == again != other


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--macs 1.5 --task rte", "invalid value for '--macs': '1.5', wanted a number above 0 and up to 1"),
        ("--task rte", "missing option '--macs'"),
        ("--macs 0.7", "no task is named; name one, such as --task rte, or --task text for files of your own"),
        ("--macs 0.7 --task rte -o .", "the output '.' is a folder; name a file with -o"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(
    place: Path, words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["search", str(place / "teacher"), *words.split()]) == 2
    assert capsys.readouterr().err.startswith(f"ffc: error: {line}")
    assert not Path("plan.json").exists()


def test_an_onnx_file_has_no_gradients(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.onnx").touch()
    assert cli.main(["search", "model.onnx", "--macs", "0.7", "--task", "rte"]) == 2
    line = "a search takes gradients, which an ONNX file does not give; name the folder of a checkpoint"
    assert capsys.readouterr().err == f"ffc: error: {line}\n"
