"""Models of sentence-transformers are read in every layout, give what their modules say, and are refused in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertModel, DebertaV2Config, DebertaV2Model

from ffc.errors import CannotApplyError, FfcError, InputError
from ffc.train import exportable
from ffc.train.models.features import SENTENCE, TOKENS
from tests.train.sentence_folders import TANH, dense_weights, save_sentences
from tests.train.tiny import save_model

MEAN = ("Pooling", {"pooling_mode": "mean"})
DENSE = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": TANH}
ROWS = {
    "input_ids": torch.tensor([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


def tokens_of(encoder: Path) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(BertModel.from_pretrained(encoder).eval()(**ROWS).last_hidden_state)


def means_of(encoder: Path) -> np.ndarray:
    mask = ROWS["attention_mask"].numpy()[..., None]
    return np.asarray((tokens_of(encoder) * mask).sum(axis=1) / mask.sum(axis=1))


def given(folder: Path) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: value.numpy() for name, value in exportable.read(folder).model(**ROWS).items()}


def test_dense_and_normalize_follow_the_pooling(tmp_path: Path) -> None:
    folder = save_sentences(tmp_path, [MEAN, ("Dense", DENSE), ("Normalize", {})])
    weights = dense_weights(DENSE)
    wanted = np.tanh(means_of(folder) @ weights["linear.weight"].T + weights["linear.bias"])
    wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
    found = given(folder)
    assert found[SENTENCE] == pytest.approx(wanted, abs=1e-5)
    assert found[TOKENS] == pytest.approx(tokens_of(folder), abs=1e-6)


@pytest.mark.parametrize("square", [True, False])
def test_a_dense_may_have_no_bias_no_activation_and_a_way_around_it(tmp_path: Path, square: bool) -> None:
    config = {"in_features": 32, "out_features": 32 if square else 8, "bias": False, "use_residual": True}
    config["activation_function"] = "torch.nn.modules.linear.Identity"
    folder = save_sentences(tmp_path, [MEAN, ("Dense", config)])
    weights, means = dense_weights(config), means_of(folder)
    around = means if square else means @ weights["residual.weight"].T
    assert given(folder)[SENTENCE] == pytest.approx(means @ weights["linear.weight"].T + around, abs=1e-5)


def test_modules_may_work_on_tokens(tmp_path: Path) -> None:
    over = {"module_input_name": TOKENS, "module_output_name": TOKENS}
    found = given(save_sentences(tmp_path, [("Normalize", over), MEAN]))
    assert np.linalg.norm(found[TOKENS], axis=-1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("encoder", ["", "0_Transformer"])
def test_old_and_new_layouts_are_one(tmp_path: Path, old: bool, encoder: str) -> None:
    old_keys = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    config = old_keys | {"pooling_mode_max_tokens": False} if old else {"pooling_mode": ["cls", "mean"]}
    folder = save_sentences(tmp_path, [("Pooling", config), ("Normalize", None)], old=old, encoder=encoder)
    wanted = np.concatenate([tokens_of(folder / encoder)[:, 0], means_of(folder / encoder)], axis=-1)
    assert given(folder)[SENTENCE] == pytest.approx(wanted / np.linalg.norm(wanted, axis=-1, keepdims=True), abs=1e-5)
    assert exportable.read(folder).encoder == folder / encoder


@pytest.mark.parametrize(("settings", "longest"), [({}, 40), ({"max_seq_length": 16}, 16), ({"max_seq_length": 99}, 40)])
def test_texts_are_cut_to_what_settings_and_positions_allow(tmp_path: Path, settings: Any, longest: int) -> None:
    assert exportable.read(save_sentences(tmp_path, **settings)).longest == longest


def test_texts_are_cut_to_what_the_config_says_where_no_table_ends(tmp_path: Path) -> None:
    save_model(tmp_path, layers=1)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 10**30}))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 40}
    config = DebertaV2Config(max_position_embeddings=64, position_biased_input=False, type_vocab_size=0, **sizes)
    DebertaV2Model(config).save_pretrained(tmp_path)
    assert exportable.read(tmp_path).longest == 64


def test_a_cross_encoder_is_a_classifier(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    scores = {"text": {"method": "forward", "method_output_name": "logits"}}
    save_sentences(tmp_path, [], transformer_task="sequence-classification", modality_config=scores)
    AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).save_pretrained(tmp_path)
    assert type(exportable.read(tmp_path).model).__name__ == "BertForSequenceClassification"


def rewrite(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


REFUSED: dict[str, tuple[Any, type[FfcError], str]] = {
    "unknown module": ([MEAN, ("SpladePooling", {})], CannotApplyError, "module '.*SpladePooling', which ffc does not know; known: Transformer, Pooling"),
    "module of others": ([MEAN, ("mine.Pooling", {})], CannotApplyError, "module 'mine.Pooling', which ffc does not know"),
    "compiled": ([("ffc.train.x.Y", {})], InputError, "is a compiled model; name its model.onnx"),
    "no pooling": ([("Normalize", {})], CannotApplyError, "has no Pooling, so it makes no vector of a sentence"),
    "unknown mode": ([("Pooling", {"pooling_mode": "median"})], CannotApplyError, "pools by 'median'.* known: cls, max"),
    "unknown old mode": ([("Pooling", {"pooling_mode_median": True})], CannotApplyError, "pools by 'pooling_mode_median'"),
    "prompts left out": ([("Pooling", {"include_prompt": False})], CannotApplyError, "leaves prompts out of the pooling"),
    "activation": ([MEAN, ("Dense", DENSE | {"activation_function": "os.system"})], CannotApplyError, "activation 'os.system', not one of"),
    "activation with arguments": ([MEAN, ("Dense", DENSE | {"activation_function": "torch.nn.modules.activation.Threshold"})], CannotApplyError, "which takes arguments"),
    "activation with weights": ([MEAN, ("Dense", DENSE | {"activation_function": "torch.nn.modules.activation.PReLU"})], CannotApplyError, "activation 'PReLU', whose own weights are not read"),
    "other features": ([MEAN, ("Dense", DENSE | {"module_input_name": "all"})], CannotApplyError, "names 'all'; known: sentence_embedding"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_unknown_is_refused_in_a_line(case: str, tmp_path: Path) -> None:
    modules, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message) as caught:
        exportable.read(save_sentences(tmp_path, modules))
    assert "\n" not in str(caught.value) and type(caught.value) is kind


DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "list": (rewrite("modules.json", "{}"), "modules.json is damaged: it holds no list"),
    "entry": (rewrite("modules.json", "[1]"), "a module has no type or no path"),
    "place": (rewrite("modules.json", '[{"type": "sentence_transformers.models.Transformer", "path": "../x"}]'), "names a folder elsewhere"),
    "config": (rewrite("1_Pooling/config.json", "no"), "config.json is damaged"),
    "no config": (lambda folder: (folder / "1_Pooling/config.json").unlink(), "cannot read .*1_Pooling"),
    "no weights": (lambda folder: (folder / "2_Dense/model.safetensors").unlink(), "has no model.safetensors; other weights"),
    "weights": (rewrite("2_Dense/model.safetensors", "no"), "model.safetensors is damaged"),
    "length": (rewrite("sentence_bert_config.json", '{"max_seq_length": "long"}'), "its max_seq_length is no number"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_damaged_is_refused_in_a_line(case: str, tmp_path: Path) -> None:
    folder = save_sentences(tmp_path, [MEAN, ("Dense", DENSE)])
    damage, message = DAMAGED[case]
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        exportable.read(folder)
    assert "\n" not in str(caught.value)


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "task": ({"transformer_task": "fill-mask"}, "is for 'fill-mask'; known: feature-extraction"),
    "pictures": ({"modality_config": {"image": {"method": "forward"}}}, "'modality_config', which ffc does not know"),
    "queries": ({"query_length": 32}, "'query_length', which ffc does not know"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_change_the_encoder_are_refused(case: str, tmp_path: Path) -> None:
    settings, message = SETTINGS[case]
    with pytest.raises(CannotApplyError, match=message):
        exportable.read(save_sentences(tmp_path, **settings))


def test_lowering_is_left_to_the_tokenizer(tmp_path: Path) -> None:
    folder = save_sentences(tmp_path, do_lower_case=True)
    exportable.read(folder)  # whose tokenizer lowers by itself
    saved = json.loads((folder / "tokenizer.json").read_text())
    saved["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(CannotApplyError, match="lowers texts before its tokenizer has them"):
        exportable.read(folder)
