"""Training: the same whatever a step is split into and padded to, on labels and on teachers of any shape."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from ffc.errors import CannotApplyError, FfcError, InputError, UsageError
from ffc.settings.losses import Losses
from ffc.settings.training import Training
from ffc.train.distillation.losses import IGNORED
from ffc.train.distillation.students import keep_layers
from ffc.train.evaluate import predict
from ffc.train.learning.trainer import History, train
from ffc.train.models.pretrained import base
from ffc.train.tasks.base import Scores
from tests.encoders import LABELS, VOCABULARY
from tests.train.lessons import (
    EVERYTHING,
    LENGTHS,
    classifier,
    collator,
    encoded,
    largest_difference,
    narrow,
    pruned,
    weights,
)


@pytest.fixture(autouse=True, scope="module")
def nothing_old_to_collect() -> Iterator[None]:
    """Spare the collector what is loaded already: accelerate calls it whenever training begins."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Judge:
    """Gives each epoch the score that it is told to, and keeps the logits."""

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)
        self.logits: list[np.ndarray] = []

    def __call__(self, logits: np.ndarray) -> Scores:
        self.logits.append(logits)
        return Scores(self.scores[len(self.logits) - 1], {})


# What a step does


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (2, 4), (3, 3), (1, 8)])
def test_how_accumulation_splits_a_step_changes_nothing(batch_size: int, accumulate: int, tmp_path: Path) -> None:
    def step(batch_size: int, accumulate: int) -> tuple[dict[str, Tensor], float]:
        student = narrow()
        training = Training(batch_size=batch_size, accumulate=accumulate, max_steps=1, warmup=0, learning_rate=1e-2)
        history = train(
            student, encoded(), collator(), training, losses=EVERYTHING, teacher=classifier(), folder=tmp_path
        )
        assert history.steps == 1
        return weights(student), history.loss[0][1]

    before, (whole, loss) = weights(narrow()), step(8, 1)
    assert largest_difference(before, whole) > 5e-3
    parts, loss_of_parts = step(batch_size, accumulate)
    assert largest_difference(whole, parts) < 1e-8
    assert loss_of_parts == pytest.approx(loss, rel=1e-6)


def test_a_step_at_the_end_of_an_epoch_is_a_mean_over_the_rows_it_has(tmp_path: Path) -> None:
    """Six rows in steps of four: the last has two, be it one part or two."""
    found = []
    for batch_size, accumulate in ((4, 1), (2, 2), (1, 4)):
        student = narrow()
        training = Training(batch_size=batch_size, accumulate=accumulate, epochs=1, warmup=0, learning_rate=1e-2)
        assert train(student, encoded(LENGTHS[:6]), collator(), training, folder=tmp_path).steps == 2
        found.append(weights(student))
    assert largest_difference(found[0], found[1]) < 1e-8 and largest_difference(found[0], found[2]) < 1e-8


def test_labelled_tokens_are_learned_and_split_as_well(tmp_path: Path) -> None:
    """A masked language model, on its labels and on the logits of a teacher at the labelled tokens."""

    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
        none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, **sizes, **none)).double()

    def masked(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch = collator()(rows)
        hidden = (batch["input_ids"] % 3 == 0) & (batch["attention_mask"] != 0)
        return batch | {
            "labels": batch["input_ids"].where(hidden, IGNORED),
            "input_ids": batch["input_ids"].where(~hidden, 4),
        }

    found, teacher = [], model(1)
    for batch_size, accumulate in ((8, 1), (3, 3)):
        student = model(0)
        training = Training(batch_size=batch_size, accumulate=accumulate, max_steps=1, warmup=0, learning_rate=1e-2)
        losses: Any = Losses(labels=1.0, logits=1.0)
        collate: Any = masked
        train(student, encoded(), collate, training, losses=losses, teacher=teacher, folder=tmp_path)
        found.append(weights(student))
    assert largest_difference(found[0], found[1]) < 1e-8
    assert not list(tmp_path.glob("teacher-*")), "rows that are masked anew have no logits to keep"


def test_weights_decay_and_biases_and_norms_do_not(tmp_path: Path) -> None:
    """Without a label there is no gradient, and what moves is the decay alone."""
    model = classifier()
    before = weights(model)
    rows = encoded()
    for index in range(len(rows)):
        rows[index]["labels"] = IGNORED
    train(
        model, rows, collator(), Training(max_steps=1, warmup=0, learning_rate=0.1, weight_decay=0.5), folder=tmp_path
    )
    for name, value in model.named_parameters():
        kept = 1.0 if name.endswith("bias") or "LayerNorm" in name else 1 - 0.1 * 0.5
        torch.testing.assert_close(value.detach(), kept * before[name], msg=name)


# What a run does


def test_a_model_learns_its_labels_and_a_student_its_teacher(tmp_path: Path) -> None:
    rows = encoded([4 + index % 9 for index in range(96)])
    labels = np.array([rows[index]["labels"] for index in range(len(rows))])
    teacher = narrow()
    history = train(teacher, rows, collator(), Training(epochs=8, learning_rate=5e-3, batch_size=16), folder=tmp_path)
    taught = predict(teacher, rows, collator()).argmax(1)
    assert np.mean(taught == labels) > 0.95 and not teacher.training
    assert history.steps == 48 and history.loss[0][1] > 5 * history.loss[-1][1] and history.best is None
    unlabelled = encoded([4 + index % 9 for index in range(96)], labels=False)
    student = keep_layers(teacher, 1)
    training = Training(epochs=5, learning_rate=5e-3, batch_size=16)
    train(student, unlabelled, collator(), training, losses=Losses(logits=1.0), teacher=teacher, folder=tmp_path)
    assert np.mean(predict(student, rows, collator()).argmax(1) == taught) > 0.95


def test_the_weights_of_the_best_epoch_are_kept(tmp_path: Path) -> None:
    model, judge = narrow(), Judge(10.0, 30.0, 30.0, 20.0)
    training = Training(epochs=4, learning_rate=1e-3)
    history = train(model, encoded(), collator(), training, validation=encoded(seed=2), score=judge, folder=tmp_path)
    assert [scores.main for scores in history.scores] == [10.0, 30.0, 30.0, 20.0] and history.best == 1
    np.testing.assert_array_equal(predict(model, encoded(seed=2), collator()), judge.logits[1])
    assert not np.array_equal(judge.logits[1], judge.logits[3])


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    def trained(seed: int, *, validate: bool) -> dict[str, Tensor]:
        model = classifier(dropout=True)
        judged: dict[str, Any] = {"validation": encoded(seed=2), "score": Judge(1.0, 2.0)} if validate else {}
        training = Training(epochs=2, seed=seed, batch_size=3, accumulate=2)
        train(model, encoded(), collator(), training, folder=tmp_path, **judged)
        return weights(model)

    first = trained(0, validate=True)
    assert largest_difference(first, trained(0, validate=False)) == 0, "whether it is validated has no say either"
    assert largest_difference(first, trained(1, validate=True)) > 1e-5


def test_annealing_ends_in_relu_and_keeps_no_epoch_before_it_has(tmp_path: Path) -> None:
    model, judge = narrow(), Judge(90.0, 10.0, 20.0, 15.0)
    training = Training(epochs=4, learning_rate=1e-3)
    history = train(model, encoded(), collator(), training, validation=encoded(seed=2), score=judge, folder=tmp_path, anneal=0.5)  # fmt: skip
    assert history.best == 2
    kinds = {type(module).__name__ for module in model.modules()}
    assert "ReLU" in kinds and not any("gelu" in kind.lower() or "blend" in kind.lower() for kind in kinds)
    np.testing.assert_array_equal(predict(model, encoded(seed=2), collator()), judge.logits[2])


def test_progress_is_told_in_lines_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    counts: list[tuple[int, ...]] = []

    def tell(line: str, *count: int) -> None:
        lines.append(line)
        counts.append(count)

    train(
        narrow(), encoded(), collator(), Training(epochs=2, batch_size=4),
        validation=encoded(seed=2), score=Judge(50.0, 60.0), folder=tmp_path, progress=tell,
    )  # fmt: skip
    assert [line.split(":")[0] for line in lines] == [
        "step 1 of 4", "step 2 of 4", "epoch 1", "step 3 of 4", "step 4 of 4", "epoch 2",
    ]  # fmt: skip
    assert counts == [(1, 4), (2, 4), (), (3, 4), (4, 4), ()]
    assert lines[-2].endswith(", 0 s left") and lines[-1] == "epoch 2: 60.00 on 8 validation rows"
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir()), "no checkpoints"


@pytest.mark.parametrize("make", [narrow, pruned])
@pytest.mark.parametrize("name", ["hidden", "attention", "relations"])
def test_students_of_any_shape_learn_from_inside_a_teacher(make: Any, name: str, tmp_path: Path) -> None:
    student, losses = make(1), Losses(**{name: 1.0}, relation_heads=5)
    keys = list(student.state_dict())
    history = train(
        student,
        encoded(),
        collator(),
        Training(epochs=12, learning_rate=5e-3),
        losses=losses,
        teacher=classifier(layers=4),
        folder=tmp_path,
    )
    assert history.loss[-1][1] < 0.6 * history.loss[0][1]
    assert list(student.state_dict()) == keys, "projections are thrown away"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())


# What is refused


def named(*labels: str) -> nn.Module:
    model = narrow()
    config: Any = model.config
    config.id2label = dict(enumerate(labels))
    return model


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"losses": Losses(logits=1.0)}, "the losses logits=1.0 need a teacher"),
        ({"losses": Losses(logits=1.0), "teacher": narrow(vocabulary=90)}, "a vocabulary of 90 tokens and the student one of 120"),
        ({"losses": Losses(logits=1.0), "teacher": narrow(labels=2)}, "the teacher has 2 labels and the student 3"),
        ({"losses": Losses(logits=1.0), "teacher": named("a", "c", "b")}, "in the order a, c, b and the student in the order a, b, c"),
        ({"rows": encoded(labels=False)}, "not every row has a label"),
        ({"rows": encoded(())}, "no rows to train on"),
        ({"rows": encoded((67,))}, "rows of up to 67 tokens are more than the 66 that Bert"),
        ({"losses": Losses(relations=1.0, relation_heads=43), "teacher": classifier()}, "relation_heads=43 is more than the 42 columns"),
        ({"losses": Losses(attention=1.0), "teacher": classifier("mpnet")}, "is not softmax.q·k. alone"),
        ({"losses": Losses(hidden=1.0, layers=((0, 2),)), "teacher": classifier()}, "name the teacher's layer 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = given.pop("rows", encoded())
    student = named("a", "b", "c")
    before = weights(student)
    with pytest.raises(FfcError, match=message) as caught:
        train(student, rows, collator(), Training(), folder=tmp_path, **given)
    assert isinstance(caught.value, UsageError | InputError | CannotApplyError)
    assert largest_difference(before, weights(student)) == 0
    assert not any(module._forward_hooks for module in student.modules())


def bare() -> nn.Module:
    return base(narrow())


def filling() -> nn.Module:
    """Return a masked language model of the vocabulary of `narrow`."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    return BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, num_labels=LABELS, **sizes)).double()


@pytest.mark.parametrize(
    ("student", "teacher", "losses", "message"),
    [
        (bare, narrow, Losses(logits=1.0), r"BertModel gives no logits, and logits .batch, labels. are needed"),
        (bare, None, Losses(labels=1.0), "BertModel gives no logits"),
        (narrow, bare, Losses(logits=1.0), "BertModel gives no logits"),
        (narrow, filling, Losses(logits=1.0), r"BertForMaskedLM gives logits \[8, "),
        (narrow, filling, Losses(logits=1.0, hidden=1.0), r"the teacher gives logits \[8, .* and the student \[8, 3\]"),
    ],
)
def test_models_without_the_head_that_losses_need_are_refused(
    student: Any, teacher: Any, losses: Losses, message: str, tmp_path: Path
) -> None:
    taught = {"teacher": teacher()} if teacher else {}
    with pytest.raises((CannotApplyError, UsageError), match=message):
        train(student(), encoded(), collator(), Training(), losses=losses, folder=tmp_path, **taught)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write in .*file: File exists; choose another folder"):
        train(narrow(), encoded(), collator(), Training(), folder=tmp_path / "file")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs is 0, wanted a number above 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5, wanted a whole number from 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warmup": -0.1}, "warmup is -0.1, wanted a share of all steps, from 0 and below 1"),
        ({"max_steps": 0}, "max_steps is 0, wanted a whole number from 1, or -1"),
        ({"schedule": "cosin"}, "schedule is 'cosin'; did you mean 'cosine'"),
    ],
)
def test_senseless_training_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Training(**given)


def test_training_that_goes_astray_ends_with_a_word_of_advice(tmp_path: Path) -> None:
    training = Training(learning_rate=1e200, warmup=0, clip=0, batch_size=4, epochs=20)
    with pytest.raises(
        UsageError, match=r"training went astray: the loss is nan at step .*; give a lower learning_rate"
    ):
        train(narrow(), encoded(), collator(), training, folder=tmp_path)


def test_history_is_plain_data(tmp_path: Path) -> None:
    history = train(narrow(), encoded(), collator(), Training(max_steps=3, batch_size=2), folder=tmp_path)
    assert history == History(history.loss, (), history.seconds, 3, None) and history.seconds > 0
    assert [step for step, _ in history.loss] == [1, 2, 3]
