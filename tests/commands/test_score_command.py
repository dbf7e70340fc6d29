"""The command ``ffc score``: an ONNX file on rows of numbers, a checkpoint on the training rows of a task."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffc import cli
from ffc.graph import files
from ffc.graph.blocks.finder import find
from ffc.pruning import Importance, Plan
from tests.encoders import FFN, HEADS, random_model
from tests.graphs import UNITS, encoder, feeds, masks

TEXTS = ["a good film", "a bad film", "good", "bad bad film", "a good good plot", "the plot is bad"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({word for text in TEXTS for word in text.split()})]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def onnx() -> Path:
    """Return the path of a model, beside which its rows lie."""
    files.save(encoder(layers=2, opset=23), "model.onnx")
    np.savez("rows.npz", **feeds(masks(20, 8)["right"]))  # type: ignore[arg-type]
    return Path("model.onnx")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small classifier of two labels with its tokenizer."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("checkpoint")
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    model: Any = random_model("bert", 2, 0, head=True)
    model.classifier = type(model.classifier)(model.config.hidden_size, 2)
    model.config.id2label, model.config.label2id = {0: "0", 1: "1"}, {"0": 0, "1": 1}
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def table() -> Path:
    """Return a file of labelled texts."""
    lines = [f"{text}\t{int('good' in text)}" for text in TEXTS * 4]
    Path("rows.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return Path("rows.tsv")


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run a command that fails and return its exit code and the one line it says."""
    code = cli.main(words)
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return code, line.removeprefix("ffc: error: ")


def test_an_onnx_file_is_scored(onnx: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", "model.onnx", "--data", "rows.npz"]) == 0
    made = Importance.load("importance.safetensors")
    assert made.mismatch(find(files.load(onnx))) is None
    assert (made.method, made.data, made.samples, made.seed, len(made.model)) == ("forward", "rows.npz", 20, 0, 64)
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == ["layer 0", "layer 1"]
    assert f", {UNITS} units " in shown.out and "20 rows in" in shown.err


def test_what_is_written_makes_a_plan(onnx: Path) -> None:
    assert cli.main("score model.onnx --data rows.npz --method forward -o i.safetensors".split()) == 0
    assert cli.main("plan model.onnx --importance i.safetensors --heads 2 --ffn 0.5 -o plan.json".split()) == 0
    best = Importance.load("i.safetensors").layers[1].heads.argsort()[-2:]
    assert Plan.load("plan.json").layers[1].heads == tuple(sorted(int(head) for head in best))


def test_rows_are_chosen_by_the_seed(onnx: Path) -> None:
    found = []
    for seed in ("0", "0", "1"):
        assert cli.main(["score", "model.onnx", "--data", "rows.npz", "--rows", "6", "--seed", seed]) == 0
        found.append(Importance.load("importance.safetensors"))
    assert [(each.samples, each.seed) for each in found] == [(6, 0), (6, 0), (6, 1)]
    assert np.array_equal(found[0].layers[0].heads, found[1].layers[0].heads)
    assert not np.array_equal(found[0].layers[0].heads, found[2].layers[0].heads)


def test_more_rows_than_there_are_is_all_of_them(onnx: Path) -> None:
    assert cli.main(["score", "model.onnx", "--data", "rows.npz", "--rows", "60"]) == 0
    assert Importance.load("importance.safetensors").samples == 20


def test_json_says_what_was_scored(onnx: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", "model.onnx", "--data", "rows.npz", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    made = Importance.load("importance.safetensors")
    assert shown["file"] == "importance.safetensors" and shown["model"] == made.model
    assert (shown["method"], shown["samples"]) == ("forward", 20)
    for layer, scores in zip(shown["layers"], made.layers, strict=True):
        assert layer["heads"] == pytest.approx(scores.heads.tolist())
        assert (layer["units"], layer["unit_range"]) == (UNITS, pytest.approx([scores.ffn.min(), scores.ffn.max()]))


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("", 2, "an ONNX file is scored on rows; give --data rows.npz, an array for each of its inputs, or rows of text"),
        (
            "--data rows.npz --method taylor",
            2,
            "--method taylor takes gradients, which an ONNX file does not give; score the checkpoint",
        ),
        ("--data rows.npz --task rte", 2, "--task is for checkpoints; an ONNX file is scored on the rows of --data alone"),
        ("--data rows.npz --on model", 2, "--on is for checkpoints; an ONNX file is scored on the rows of --data alone"),
        (
            "--data rows.npz --max-length 8",
            2,
            "'max_length' says how rows of text are read, and there are none; give them as data, a file that ends with .tsv, .csv, .jsonl",
        ),
        ("--data rows.npz -o .", 2, "the output '.' is a folder; name a file with -o"),
        ("--data rows.npz --seed -1", 2, "invalid value for '--seed': '-1', wanted a whole number from 0 to 4294967295"),
        (  # larger ones once made a file that could not be read
            "--data rows.npz --seed 1000000000000000000",
            2,
            "invalid value for '--seed': '1000000000000000000', wanted a whole number from 0 to 4294967295",
        ),
        ("--data rows.npz -o no/i.st", 2, "the folder 'no' of the output does not exist; create it first"),
        ("--data rows.npz -o rows.npz", 2, "the output 'rows.npz' is an input; name another file"),
        ("--data rows.npz -o model.onnx", 2, "the output 'model.onnx' is an input; name another file"),
        (
            "--data less.npz",
            3,
            "the data has no array 'token_type_ids', which the model takes; it has input_ids, attention_mask",
        ),
    ],
)  # fmt: skip
def test_what_an_onnx_file_cannot_be_scored_on_is_refused(
    onnx: Path, words: str, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("less.npz", **feeds(masks(2, 8)["full"], types=False))  # type: ignore[arg-type]
    before = Path("rows.npz").read_bytes(), onnx.read_bytes()
    assert fails(capsys, "score", "model.onnx", *words.split()) == (code, line)
    assert (Path("rows.npz").read_bytes(), onnx.read_bytes()) == before
    assert not Path("importance.safetensors").exists()


def test_a_checkpoint_is_scored_on_the_training_rows(
    checkpoint: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--task text --train rows.tsv --text sentence -o i.safetensors --json".split()
    assert cli.main(["score", str(checkpoint), *words]) == 0
    made = Importance.load("i.safetensors")
    assert [(len(layer.heads), len(layer.ffn)) for layer in made.layers] == [(HEADS, FFN)] * 2
    rows = len(TEXTS) * 4
    assert made.method == "taylor" and 0 < made.samples < rows  # the rest is kept for validation
    assert made.data == "text train"
    assert json.loads(capsys.readouterr().out)["samples"] == made.samples


def test_a_checkpoint_is_scored_by_fisher_on_its_own_labels(checkpoint: Path, table: Path) -> None:
    words = "--task text --train rows.tsv --text sentence --method fisher --on model --rows 5 --seed 3".split()
    assert cli.main(["score", str(checkpoint), *words]) == 0
    made = Importance.load("importance.safetensors")
    assert (made.method, made.samples, made.seed) == ("fisher on model", 5, 3)


def test_a_checkpoint_and_its_export_have_one_hash(checkpoint: Path, table: Path) -> None:
    import torch

    from ffc.train.models.loading import load
    from tests.encoders import INPUTS, minilm_example, to_onnx

    with minilm_example().quiet(), torch.no_grad():
        to_onnx(load(checkpoint).eval(), INPUTS["bert"], Path("export.onnx"), "logits")
    np.savez("rows.npz", **feeds(masks(2, 8)["right"], vocabulary=len(WORDS)))  # type: ignore[arg-type]
    assert cli.main(["score", "export.onnx", "--data", "rows.npz", "-o", "onnx.st"]) == 0
    words = "--task text --train rows.tsv --text sentence -o torch.st".split()
    assert cli.main(["score", str(checkpoint), *words]) == 0
    assert Importance.load("onnx.st").model == Importance.load("torch.st").model


def test_scores_go_over_no_input_but_over_former_scores(
    checkpoint: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["score", str(checkpoint), *"--task text --train rows.tsv --text sentence --rows 5 -o".split()]
    before = table.read_bytes()
    for taken in (str(table), str(checkpoint / "model.safetensors")):
        assert fails(capsys, *words, taken) == (2, f"the output '{taken}' is an input; name another file")
    assert table.read_bytes() == before
    assert [cli.main([*words, str(checkpoint / "importance.safetensors")]) for _ in range(2)] == [0, 0]


def test_the_nearest_folder_is_offered(checkpoint: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = checkpoint.with_name(f"{checkpoint.name}x")
    line = f"cannot load {wrong}: no such file; did you mean '{checkpoint}'?"
    assert fails(capsys, "score", str(wrong), *"--task text --train rows.tsv --text sentence".split()) == (3, line)


def test_a_checkpoint_for_other_labels_is_refused(
    checkpoint: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.write_text(table.read_text().replace("\t1", "\tyes").replace("\t0", "\tno"))
    code, line = fails(capsys, "score", str(checkpoint), *"--task text --train rows.tsv --text sentence".split())
    wanted = f"the model '{checkpoint}' is for the labels 0, 1, task text has no, yes; name a model that `ffc train`"
    assert code == 2 and line.startswith(wanted)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "no task is named; name one, such as --task rte, or --task text for files of your own"),
        (
            "--task rte --method forward",
            "--method forward runs an ONNX file; a checkpoint is scored by taylor or fisher",
        ),
    ],
)  # fmt: skip
def test_what_a_checkpoint_cannot_be_scored_by_is_refused(
    checkpoint: Path, words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(capsys, "score", str(checkpoint), *words.split()) == (2, line)


def test_without_the_libraries_it_says_what_to_install(
    checkpoint: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    code, line = fails(capsys, "score", str(checkpoint), *"--task text --train rows.tsv --text sentence".split())
    assert (code, line) == (5, "this needs torch; install it with pip install 'fastformers-compiler[train]'")
