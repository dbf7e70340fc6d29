"""What does not suit a model is refused before any work, and training that fails leaves a model that can be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ffc.errors import CannotApplyError, FfcError, InputError, UsageError
from ffc.pruning import LayerPlan, Plan
from ffc.settings.losses import Losses
from ffc.settings.training import Training
from ffc.train.checks import check_vocabulary
from ffc.train.distillation.teacher import cached_logits
from ffc.train.encoding import Collator, Rows, encode
from ffc.train.evaluate import predict
from ffc.train.learning.trainer import train
from ffc.train.models import pretrained
from ffc.train.models.checkpoint import save_pruned
from ffc.train.models.loading import load
from ffc.train.pruning import importance, scales
from ffc.train.tasks.base import Example, Scores, Task
from tests.train.tiny import WORDS, save_model

TASK = Task("moods", ("bad", "good"), "accuracy", (), ())
STEP = Training(max_steps=4, batch_size=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder that takes 40 tokens and knows the tiny vocabulary."""
    return save_model(tmp_path_factory.mktemp("checks") / "bert", layers=2)


@pytest.fixture
def model(source: Path) -> nn.Module:
    return pretrained.classifier(source, TASK)


@pytest.fixture(scope="module")
def collator(source: Path) -> Collator:
    return Collator(pretrained.tokenizer(source))


def made(*rows: Sequence[int], label: int | None = 0) -> Rows:
    """Return rows of these ids."""
    known = {} if label is None else {"labels": label}
    found: list[dict[str, Any]] = [
        {"input_ids": list(ids), "attention_mask": [1] * len(ids), "index": index, **known}
        for index, ids in enumerate(rows)
    ]
    return Rows(found, [Example("text", label=label)] * len(rows), 64)


def good(collator: Collator) -> Rows:
    return encode([Example("good film", label=1), Example("a very bad day", label=0)] * 2, collator.tokenizer)


LONG, STRANGE = made((2, *[5] * 40, 3)), made((2, 5, 500, 3))
WORK: dict[str, Callable[[nn.Module, Rows, Collator], object]] = {
    "predict": predict,
    "score": importance.score,
    "tune": lambda model, rows, collator: scales.tune(model, Plan(layers=(LayerPlan(), LayerPlan())), rows, collator),
}


@pytest.mark.parametrize("work", WORK)
def test_rows_that_a_model_cannot_take_are_refused(work: str, model: nn.Module, collator: Collator) -> None:
    with pytest.raises(UsageError, match="rows of up to 42 tokens are more than the 40 that Bert"):
        WORK[work](model, LONG, collator)
    with pytest.raises(InputError, match=r"the rows hold the token 500 and Bert.* has embeddings for 21; encode"):
        WORK[work](model, STRANGE, collator)


@pytest.mark.parametrize("work", ["score", "tune"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_where_it_would_spoil_sums(
    work: str, dtype: torch.dtype, model: nn.Module, collator: Collator
) -> None:
    with pytest.raises(CannotApplyError, match=r"are b?float16, too coarse .* convert the model to float32 first"):
        WORK[work](model.to(dtype), good(collator), collator)


def judge(logits: np.ndarray) -> Scores:
    return Scores(50.0, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rows": STRANGE}, "the rows hold the token 500"),
        ({"rows": made((2, 5, 3), label=2)}, "a row has label 2 and the model knows 2; give rows of its task"),
        ({"validation": LONG}, "rows of up to 42 tokens"),
        ({"validation": STRANGE}, "the rows hold the token 500"),
        ({"validation": made((2, 5, 3), label=None)}, "not every validation row has a label"),
        ({"validation": made()}, "there are no validation rows"),
    ],
)
def test_training_refuses_in_time(
    given: dict[str, Any], message: str, model: nn.Module, collator: Collator, tmp_path: Path
) -> None:
    rows = given.get("rows", good(collator))
    told: list[str] = []
    with pytest.raises(FfcError, match=message) as caught:
        train(
            model, rows, collator, STEP, validation=given.get("validation"), score=judge, folder=tmp_path,
            progress=lambda *each: told.append(each),
        )  # fmt: skip
    assert isinstance(caught.value, UsageError | InputError) and not told


def test_training_in_half_precision_is_refused(model: nn.Module, collator: Collator, tmp_path: Path) -> None:
    with pytest.raises(CannotApplyError, match="are float16, too coarse"):
        train(model.half(), good(collator), collator, STEP, folder=tmp_path)


@pytest.mark.parametrize("seed", [-1, 1 << 32])
def test_a_seed_that_numpy_does_not_take_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match=f"seed is {seed}, wanted a whole number from 0 to 4294967295"):
        Training(seed=seed)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(model: nn.Module, source: Path, tmp_path: Path) -> None:
    check_vocabulary(model, pretrained.tokenizer(source))
    more = pretrained.tokenizer(save_model(tmp_path, words=[*WORDS, "night"]))
    with pytest.raises(InputError, match="the tokenizer makes 22 ids and the model has embeddings for 21"):
        check_vocabulary(model, more)


def test_training_that_fails_on_the_way_leaves_a_model_that_can_be_saved(
    model: nn.Module, collator: Collator, tmp_path: Path
) -> None:
    def stop(line: str, *_: int) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match="step 1"):
        train(model, good(collator), collator, STEP, folder=tmp_path, progress=stop, anneal=1.0)
    kinds = {type(module).__name__ for module in model.modules()}
    assert "GELUActivation" in kinds and not any("Blend" in kind for kind in kinds)
    assert not any(module.training for module in model.modules())
    save_pruned(model, tmp_path / "model")
    np.testing.assert_array_equal(
        predict(load(tmp_path / "model"), good(collator), collator), predict(model, good(collator), collator)
    )


def test_weights_that_break_in_the_last_steps_are_refused(model: nn.Module, collator: Collator, tmp_path: Path) -> None:
    # One step: its loss is logged, and finite; the weights that it leaves are not.
    once = Training(max_steps=1, batch_size=4, learning_rate=1e39, warmup=0, clip=0)
    with pytest.raises(UsageError, match=r"training went astray: .* is not finite in the end; give a lower learning_r"):
        train(model, good(collator), collator, once, losses=Losses(labels=1.0), folder=tmp_path)


def test_a_single_row_is_trained_on(model: nn.Module, collator: Collator, tmp_path: Path) -> None:
    history = train(model, made((2, 3)), collator, Training(epochs=3, batch_size=8), folder=tmp_path)
    assert history.steps == 3 and all(np.isfinite(loss) for _, loss in history.loss)


def test_a_folder_that_cannot_hold_the_logits_of_a_teacher_is_refused(
    model: nn.Module, collator: Collator, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*teacher-.*\.npz: .*; choose another folder"):
        cached_logits(model, good(collator), collator, tmp_path / "file")
