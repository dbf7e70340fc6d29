"""The encoder that the study of RTE starts from: what it is taught, and that training can go on from it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from ffc.settings.data import Data
from ffc.train import tasks
from ffc.train.models import pretrained
from ffc.train.tasks.base import Example
from tests import checkout
from tests.train import tiny

ROWS = 12


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = checkout.load("studies/rte_start")
    monkeypatch.setattr(module, "SOURCE", str(tiny.save_model(tmp_path / "encoder", longest=module.MAX_LENGTH)))
    monkeypatch.setattr(module, "TRAINING", dataclasses.replace(module.TRAINING, epochs=1))
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with rows of RTE; two premises stand twice."""
    folder = tmp_path / "superglue" / "RTE"
    folder.mkdir(parents=True)
    for name, count in {"train": ROWS, "val": 4}.items():
        rows = [
            {
                "premise": f"the {tiny.WORDS[row % 10]} film was {tiny.WORDS[row % 10]} and {tiny.OTHER[row % 10]}",
                "hypothesis": f"this {tiny.WORDS[-1 - row]} book",
                "label": ("entailment", "not_entailment")[row % 2],
                "idx": row,
            }
            for row in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return tmp_path


def test_a_pair_is_near_where_the_embeddings_are_nearer_than_the_median(start: ModuleType, data: Path) -> None:
    rows = tasks.load(Data("rte", data / "superglue" / "RTE")).train
    tokenizer = pretrained.tokenizer(start.SOURCE)
    found = start.comparisons(rows, tokenizer)

    def cosine(example: Example) -> float:
        one, two = (start.embed([str(text)], tokenizer)[0] for text in (example.first, example.second))
        return float(one @ two)

    own, others = found[:ROWS], found[ROWS:]
    assert [(each.first, each.second) for each in own] == [(row.first, row.second) for row in rows]
    assert [each.second for each in others] == [row.second for row in rows]
    assert all(each.first != row.first for each, row in zip(others, rows, strict=True))
    border = np.median([cosine(each) for each in own])
    assert [each.label for each in found] == [int(cosine(each) > border) for each in found]
    assert 0 < sum(bool(each.label) for each in own) < ROWS


def test_training_goes_on_from_the_encoder_that_is_written(
    start: ModuleType, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = data / "start"
    monkeypatch.setattr(sys, "argv", ["rte_start.py", "--data-folder", str(data), "-o", str(out)])
    start.main()
    model = pretrained.classifier(out, tasks.load(Data("rte", data / "superglue" / "RTE")))
    assert dict(model.config.id2label) == {0: "entailment", 1: "not_entailment"}
    before = pretrained.encoder(start.SOURCE).state_dict()
    after = pretrained.base(model).state_dict()
    assert not torch.equal(before["embeddings.word_embeddings.weight"], after["embeddings.word_embeddings.weight"])
    assert pretrained.same_tokens(pretrained.tokenizer(start.SOURCE), pretrained.tokenizer(out))


def test_a_pooler_that_decayed_lets_the_first_token_through_again(start: ModuleType) -> None:
    model = pretrained.encoder(start.SOURCE)
    model.pooler.dense.weight.data.mul_(0.01)
    start.refresh_pooler(model)
    assert float(model.pooler.dense.weight.detach().std()) == pytest.approx(model.config.hidden_size**-0.5, rel=0.1)
