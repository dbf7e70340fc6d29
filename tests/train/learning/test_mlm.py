"""Distillation on plain text: rows and masks are what they should be, and the result starts other students."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from ffc.errors import InputError, UsageError
from ffc.settings.losses import Losses
from ffc.settings.training import Training
from ffc.train.distillation.losses import IGNORED
from ffc.train.distillation.students import keep_layers
from ffc.train.learning import mlm
from ffc.train.learning.mlm import MaskingCollator, distill_general, read_texts, text_rows
from ffc.train.models import pretrained
from ffc.train.models.layers import find_layers
from ffc.train.tasks.base import Task
from tests.train.tiny import WORDS, save_model

TEXTS = ["the film was good", "a bad book", "very very awful day and it was this", "great"] * 6
PAD, CLS, SEP, MASK = 0, 2, 3, 4
RELATIONS = Losses(relations=1.0, relation_heads=4)
SMALL = Training(epochs=1, max_steps=8, batch_size=4, learning_rate=5e-3)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher without a head."""
    return save_model(tmp_path_factory.mktemp("mlm") / "bert", layers=4)


@pytest.fixture(scope="module")
def tokenizer(source: Path) -> Any:
    return pretrained.tokenizer(source)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(source: Path, layers: int | list[int]) -> tuple[nn.Module, nn.Module]:
    """Return a teacher, and a student of some of its layers."""
    teacher = pretrained.language_model(source)
    return teacher, keep_layers(teacher, layers)


# Rows


def test_packed_rows_are_full_and_hold_every_passage_in_order(tokenizer: Any) -> None:
    rows = text_rows(TEXTS, tokenizer, 12)
    found = [rows[index]["input_ids"] for index in range(len(rows))]
    assert {len(ids) for ids in found[:-1]} == {12}
    assert all(ids[0] == CLS and ids[-1] == SEP for ids in found)
    words = [token for ids in found for token in ids[1:-1]]
    wanted = [token for text in TEXTS for token in (*tokenizer(text, add_special_tokens=False)["input_ids"], SEP)]
    assert words == wanted[:-1]
    assert [rows[index]["index"] for index in range(len(rows))] == list(range(len(rows)))


def test_a_short_passage_is_a_row_as_the_tokenizer_makes_it(tokenizer: Any) -> None:
    for text in TEXTS[:4]:
        (row,) = text_rows([text], tokenizer)
        wanted = tokenizer(text)["input_ids"]
        assert row["input_ids"] == row["labels"] == wanted
        assert row["attention_mask"] == [1] * len(wanted)


def test_text_that_is_not_there_or_has_no_room_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    for texts in ([], ["", ""]):
        with pytest.raises(InputError, match="no text to learn from"):
            text_rows(texts, tokenizer)
    with pytest.raises(UsageError, match="max_length=2 leaves no room"):
        text_rows(TEXTS, tokenizer, 2)
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "one.txt").write_text("größer\n\n  another \n", encoding=encoding)
        assert read_texts(tmp_path / "one.txt") == ["größer", "another"]
    (tmp_path / "two.txt").write_bytes(b"\xff\xfe")
    for name in ("two.txt", "none.txt"):
        with pytest.raises(InputError, match=rf"cannot read .*{name}: .*give a text file in UTF-8"):
            read_texts(tmp_path / name)


# Masks


def test_of_the_tokens_15_percent_are_told_and_of_those_80_masked_10_replaced_and_10_left(tokenizer: Any) -> None:
    rows = text_rows(["good film the book day was very bad it this " * 40] * 40, tokenizer, 66)
    collator = MaskingCollator(tokenizer, random=seeded(0))
    given = torch.tensor([rows[index]["input_ids"] for index in range(200)])
    batch = collator([rows[index] for index in range(200)])
    told = batch["labels"] != IGNORED
    assert torch.equal(batch["labels"][told], given[told])
    assert torch.equal(batch["input_ids"][~told], given[~told])
    special = torch.isin(given, torch.tensor([CLS, SEP]))
    assert special.any() and not (told & special).any()
    assert abs(told.sum() / (~special).sum() - 0.15) < 0.012
    shown, true = batch["input_ids"][told], given[told]
    masked, left = (shown == MASK).float().mean(), (shown == true).float().mean()
    words = len(tokenizer)
    assert abs(masked - 0.8 - 0.1 / words) < 0.03
    assert abs(left - 0.1 - 0.1 / words) < 0.03
    assert {*shown.tolist()} > {*range(words // 2)}  # any token may come, not only those of the text


def test_masks_are_the_same_with_the_same_seed_and_drawn_anew_each_time(tokenizer: Any) -> None:
    rows = text_rows(TEXTS, tokenizer, 20)
    chosen = [rows[index] for index in range(4)]
    one, other = MaskingCollator(tokenizer, random=seeded(1)), MaskingCollator(tokenizer, random=seeded(1))
    first, second = one(chosen), one(chosen)
    assert all(torch.equal(first[name], value) for name, value in other(chosen).items())
    assert not torch.equal(first["labels"], second["labels"])
    different = MaskingCollator(tokenizer, random=seeded(2))(chosen)
    assert not torch.equal(first["labels"], different["labels"])


def test_padding_is_never_told_and_without_a_share_nothing_is(tokenizer: Any) -> None:
    chosen = [text_rows([text], tokenizer)[0] for text in TEXTS[:4]]
    everything = MaskingCollator(tokenizer, share=1.0, random=seeded(0))(chosen)
    real = everything["attention_mask"] == 1
    assert ((everything["labels"] != IGNORED).sum(dim=1) == real.sum(dim=1) - 2).all()
    nothing = MaskingCollator(tokenizer, share=0.0)(chosen)
    assert (nothing["labels"] == IGNORED).all()
    assert torch.equal(
        nothing["input_ids"][real], torch.tensor([token for row in chosen for token in row["input_ids"]])
    )


def test_a_tokenizer_without_a_mask_is_refused(source: Path) -> None:
    tokenizer: Any = pretrained.tokenizer(source)
    tokenizer.mask_token = None
    with pytest.raises(UsageError, match="has no mask; use the losses relations and hidden"):
        MaskingCollator(tokenizer)
    assert (MaskingCollator(tokenizer, share=0.0)([text_rows(TEXTS, tokenizer)[0]])["labels"] == IGNORED).all()


# Distillation


def surprise(model: Any, tokenizer: Any) -> float:
    """Return the cross-entropy at half of the tokens of all rows, masked."""
    rows = text_rows(TEXTS, tokenizer, 20)
    batch = MaskingCollator(tokenizer, share=0.5, random=seeded(9))([rows[index] for index in range(len(rows))])
    with torch.no_grad():
        logits = model(batch["input_ids"], batch["attention_mask"]).logits
    return float(nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()))


def test_a_student_learns_from_all_losses_and_starts_other_students(
    source: Path, tokenizer: Any, tmp_path: Path
) -> None:
    teacher = pretrained.filling(pretrained.encoder(source))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    losses = Losses(labels=1.0, logits=0.1, hidden=0.1, relations=0.1, relation_heads=4)
    training = replace(SMALL, max_steps=40, learning_rate=1e-2)
    history = distill_general(teacher, keep_layers(teacher, 2), TEXTS * 4, tokenizer, training, losses, tmp_path, max_length=20)
    assert history.steps == 40
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    student = pretrained.language_model(tmp_path)
    assert pretrained.fills_masks(student) and len(find_layers(student)) == 2
    assert surprise(student, tokenizer) < 0.9 * surprise(keep_layers(teacher, 2), tokenizer)
    task = Task("moods", ("bad", "good"), "accuracy", (), ())
    model = pretrained.classifier(tmp_path, task)
    for name, value in pretrained.base(student).state_dict().items():
        assert torch.equal(pretrained.base(model).state_dict()[name], value)
    assert pretrained.tokenizer(tmp_path)("good film")["input_ids"] == tokenizer("good film")["input_ids"]


def test_of_several_processes_the_first_alone_saves(
    source: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlm, "PartialState", lambda: SimpleNamespace(is_main_process=False))
    distill_general(*pair(source, 1), TEXTS, tokenizer, replace(SMALL, max_steps=1), RELATIONS, tmp_path, max_length=20)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_tokenizer_with_more_tokens_than_the_teacher_is_refused(source: Path, tmp_path: Path) -> None:
    more = pretrained.tokenizer(save_model(tmp_path, words=[*WORDS, "night"]))
    with pytest.raises(InputError, match="the tokenizer makes 22 ids and the model has embeddings for 21"):
        distill_general(*pair(source, 1), TEXTS, more, SMALL, RELATIONS, tmp_path / "out", max_length=20)


def test_the_same_seed_gives_the_same_student(source: Path, tokenizer: Any, tmp_path: Path) -> None:
    found: list[nn.Module] = []
    for name in ("one", "two"):
        models = pair(source, [0, 3])
        distill_general(*models, TEXTS, tokenizer, SMALL, Losses(labels=1.0), tmp_path / name, max_length=20)
        found.append(pretrained.language_model(tmp_path / name))
    one, two = (model.state_dict() for model in found)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_teacher_without_a_head_teaches_relations_to_a_student_of_another_width(
    source: Path, tokenizer: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    narrow = BertModel(
        BertConfig(**pretrained.encoder(source).config.to_dict() | {"hidden_size": 24, "num_hidden_layers": 2})
    )
    start = {name: value.clone() for name, value in narrow.state_dict().items()}
    losses = Losses(relations=1.0, hidden=1.0, relation_heads=4)
    history = distill_general(pretrained.language_model(source), narrow, TEXTS, tokenizer, SMALL, losses, tmp_path, max_length=20)
    assert history.loss[-1][1] < history.loss[0][1]
    saved = pretrained.encoder(tmp_path)
    assert not pretrained.fills_masks(pretrained.language_model(tmp_path))
    assert any(not torch.equal(value, start[name]) for name, value in saved.state_dict().items())


def test_what_the_teacher_or_the_rows_cannot_give_is_refused(source: Path, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="loss logits needs a teacher with a head for masked language modelling"
    ) as caught:
        distill_general(*pair(source, 2), TEXTS, tokenizer, SMALL, Losses(logits=1.0), tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="rows of up to 41 tokens are more than the 40 that BertForMaskedLM takes"):
        distill_general(*pair(source, 2), TEXTS, tokenizer, SMALL, Losses(labels=1.0), tmp_path, max_length=41)
    assert len(WORDS) + 5 == len(tokenizer)
