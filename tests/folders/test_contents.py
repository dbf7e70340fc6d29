"""What goes along with a model: a tokenizer that cuts and pads as the model does, labels, and names to find it by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from tokenizers import Tokenizer

from ffc.errors import InputError
from ffc.folders.contents import beside, of_saved, with_modules
from ffc.train import exportable
from tests.graphs import of_program
from tests.train.sentence_folders import save_sentences
from tests.train.tiny import save_model


def relu() -> ir.Model:
    return of_program(lambda op, x: op.Relu(x), {"x": np.ones(3, np.float32)}, {}, {})


def embeds() -> ir.Model:
    model = relu()
    model.graph.outputs[0].name = "sentence_embedding"
    return model


def test_the_tokenizer_cuts_and_pads_whoever_reads_it(tmp_path: Path) -> None:
    folder = save_sentences(tmp_path, max_seq_length=6)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"max_length": 4, "auto_map": {"x": "y"}}))
    found = of_saved(exportable.read(folder))
    encoded = Tokenizer.from_str(found["tokenizer.json"].decode()).encode_batch(["good film", "the film was very bad and awful"])
    assert [each.ids[-1] for each in encoded] == [0, 3] and {len(each.ids) for each in encoded} == {6}
    said: dict[str, Any] = json.loads(found["tokenizer_config.json"])
    assert said["model_max_length"] == 6 and said["pad_token"] == "[PAD]"
    assert not {"max_length", "auto_map"} & said.keys()
    assert json.loads(found["special_tokens_map.json"])["cls_token"] == "[CLS]"


def test_the_config_keeps_labels_and_says_which_file_transformers_js_takes(tmp_path: Path) -> None:
    save_model(tmp_path, layers=1)
    config = json.loads((tmp_path / "config.json").read_text()) | {"id2label": {"0": "no", "1": "yes"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = json.loads(of_saved(exportable.read(tmp_path))["config.json"])
    assert found["id2label"] == {"0": "no", "1": "yes"} and found["transformers.js_config"] == {"dtype": "fp32"}


def test_a_damaged_config_is_told_in_a_line(tmp_path: Path) -> None:
    found = exportable.read(save_model(tmp_path, layers=1))
    for text, why in {"[]": "it holds no object", "{": "Expecting"}.items():
        (tmp_path / "tokenizer_config.json").write_text(text)
        with pytest.raises(InputError, match=f"tokenizer_config.json is damaged: {why}"):
            of_saved(found)


def test_prompts_go_along_and_sentence_transformers_finds_its_module(tmp_path: Path) -> None:
    folder = save_sentences(tmp_path, encoder="0_Transformer")
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q: "}}')
    found = with_modules(of_saved(exportable.read(folder)), embeds())
    assert json.loads(found["config_sentence_transformers.json"]) == {"prompts": {"query": "q: "}}
    (module,) = json.loads(found["modules.json"])
    assert (module["path"], module["type"]) == ("", "ffc.train.sentence_encoder.SentenceEncoder")


def test_a_model_that_embeds_no_sentence_or_has_no_tokenizer_is_no_module(tmp_path: Path) -> None:
    assert with_modules({"tokenizer.json": b""}, relu()).keys() == {"tokenizer.json"}
    assert not with_modules({}, embeds())


def test_what_lies_beside_an_onnx_file_goes_along(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "config.json", "spiece.model", "notes.txt", "model.safetensors"):
        (tmp_path / name).write_text(name)
    wanted = {"tokenizer.json", "config.json", "spiece.model"}
    assert beside(tmp_path / "model.onnx").keys() == wanted
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/config.json").write_text("nearer")
    found = beside(tmp_path / "onnx/model.onnx")
    assert found.keys() == wanted and found["config.json"] == b"nearer"
    (tmp_path / "other").mkdir()
    assert not beside(tmp_path / "other/model.onnx")
