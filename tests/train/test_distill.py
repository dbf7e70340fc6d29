"""Training: the same whatever a step is split into and padded to, on labels and on teachers of any shape."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from ffc.errors import CannotApplyError, FfcError, InputError, UsageError
from ffc.pruning import LayerPlan, Plan
from ffc.train.activation import Anneal
from ffc.train.anatomy import anatomy
from ffc.train.capture import Capture
from ffc.train.distill import History, Training, train
from ffc.train.encoding import Collator, Rows
from ffc.train.evaluate import predict
from ffc.train.losses import IGNORED, Losses, relation_log_probabilities
from ffc.train.models import takes
from ffc.train.objective import LiveTeacher, Objective, Pairing
from ffc.train.sampling import LengthSampler
from ffc.train.students import keep_layers
from ffc.train.surgery import apply
from ffc.train.tasks.base import Example, Scores
from ffc.train.teacher import CachedTeacher, cached_logits
from tests.encoders import FFN, HEADS, LABELS, VOCABULARY, Kind, perturb, random_model

LENGTHS = (9, 4, 12, 7, 5, 3, 8, 6)
EVERYTHING = Losses(labels=1.0, logits=0.7, hidden=0.5, attention=0.3, relations=0.9, temperature=2.0, relation_heads=5)


@pytest.fixture(autouse=True, scope="module")
def nothing_old_to_collect() -> Iterator[None]:
    """Spare the collector what is loaded already: accelerate calls it whenever training begins."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def collator(length: int | None = None) -> Collator:
    """Return what pads to `length`, or to the longest row."""
    tokenizer: Any = SimpleNamespace(pad_token_id=1, pad_token_type_id=0, padding_side="right")
    return Collator(tokenizer, length)


def encoded(lengths: Sequence[int] = LENGTHS, *, seed: int = 0, labels: bool = True) -> Rows:
    """Return rows of random ids, whose label can be learned: it is that of the second token."""
    random = np.random.default_rng(seed)
    rows = []
    for index, length in enumerate(lengths):
        ids = random.integers(5, VOCABULARY, length)
        row: dict[str, Any] = {"input_ids": ids.tolist(), "attention_mask": [1] * length, "index": index}
        row |= {"token_type_ids": random.integers(0, 2, length).tolist()}
        rows.append(row | ({"labels": int(ids[1]) % LABELS} if labels else {}))
    return Rows(rows, [Example("text")] * len(rows), 64)


def classifier(kind: Kind = "bert", layers: int = 2, *, seed: int = 0, dropout: bool = False) -> nn.Module:
    """Return a random classifier; without dropout in float64, where rounding hides nothing."""
    model = random_model(kind, layers, seed, True, "eager" if kind == "mpnet" else "sdpa")
    perturb(model, seed, zero_biases=False)
    if dropout:
        return model
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.double()


def narrow(seed: int = 0, *, vocabulary: int = VOCABULARY, labels: int = LABELS) -> nn.Module:
    """Return a BERT of another width, number of heads and head size than those of `classifier`."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 42, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 50}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=vocabulary, max_position_embeddings=66, num_labels=labels, **sizes, **dropout)
    model = BertForSequenceClassification(config)
    perturb(model, seed, zero_biases=False)
    return model.double()


def pruned(seed: int = 1) -> nn.Module:
    """Return a classifier of uneven layers, whose 48 and 72 columns of q are no multiple of 5."""
    plans = (LayerPlan(heads=(0, 2), units=tuple(range(50)), of_heads=HEADS, of_units=FFN),)
    plans += (LayerPlan(heads=(0, 1, 3), units=tuple(range(9)), of_heads=HEADS, of_units=FFN),)
    return apply(classifier(seed=seed), Plan(layers=plans))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def objective(student: nn.Module, teacher: nn.Module, losses: Losses) -> tuple[Objective, LiveTeacher]:
    pairing = Pairing.of(student, teacher, losses) if losses.inside else None
    return Objective(student, losses, pairing), LiveTeacher(teacher, losses, pairing)


class Judge:
    """Gives each epoch the score that it is told to, and keeps the logits."""

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)
        self.logits: list[np.ndarray] = []

    def __call__(self, logits: np.ndarray) -> Scores:
        self.logits.append(logits)
        return Scores(self.scores[len(self.logits) - 1], {})


# What the losses see


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
def test_the_loss_of_a_row_depends_on_neither_padding_nor_its_neighbours(kind: Kind) -> None:
    student, teacher = classifier(kind, 2, seed=1), classifier(kind, 4)
    both = objective(student, teacher, EVERYTHING)
    rows = [encoded()[index] for index in range(len(LENGTHS))]

    def loss(chosen: list[dict[str, Any]], length: int | None) -> Tensor:
        batch = collator(length)(chosen)
        found: Tensor = both[0](batch, both[1](batch))
        return found

    together = loss(rows, None)
    torch.testing.assert_close(loss(rows, 40), together, rtol=1e-9, atol=0)
    torch.testing.assert_close(sum(loss([row], None) for row in rows), together, rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
def test_attention_maps_are_those_that_eager_attention_returns(kind: Kind) -> None:
    model = classifier(kind)
    layers = anatomy(model)
    capture = Capture(model, layers, embeddings=True, hidden=(0, 1), projections=[(1, "q"), (1, "k")])
    batch = collator()([encoded()[index] for index in range(4)])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        inputs = {name: batch[name] for name in takes(model)}
        output = model(**inputs, output_attentions=True, output_hidden_states=True)
    caught, mask = capture.take(), batch["attention_mask"] != 0
    found = relation_log_probabilities(caught.values[1, "q"], caught.values[1, "k"], layers[1].heads, mask)
    torch.testing.assert_close(found.exp(), output.attentions[1], rtol=1e-9, atol=1e-12)
    states = [caught.embeddings, caught.values[0, "hidden"], caught.values[1, "hidden"]]
    for state, expected in zip(states, output.hidden_states, strict=True):
        torch.testing.assert_close(state, expected, rtol=0, atol=0)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_inside() -> None:
    student, teacher = classifier(), classifier()
    both = objective(student, teacher, Losses(hidden=1.0, attention=1.0, relations=1.0, relation_heads=7))
    batch = collator()([encoded()[0], encoded()[1]])
    assert abs(float(both[0](batch, both[1](batch)).detach())) < 1e-12


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


def test_projections_are_learned_only_where_widths_differ() -> None:
    teacher = classifier(layers=4)
    wide, same = (
        objective(narrow(), teacher, Losses(hidden=1.0))[0],
        objective(pruned(), teacher, Losses(hidden=1.0))[0],
    )
    assert [tuple(part.weight.shape) for part in wide.projections] == [(96, 42)] * 3
    assert not same.projections


def test_each_model_gets_the_columns_that_it_takes() -> None:
    """DistilBERT knows no token types, which its teacher uses all the same."""
    teacher = classifier("bert")
    both = objective(classifier("distilbert", seed=3), teacher, Losses(logits=1.0))
    batch = collator()([encoded()[0], encoded()[1]])
    lesson = both[1](batch)
    typed = teacher(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}).logits
    torch.testing.assert_close(lesson.logits, typed.detach())
    assert not torch.allclose(
        typed, teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    )
    assert both[0](batch, lesson).isfinite()


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


# What a teacher says, once


def test_a_teacher_of_logits_runs_once_and_never_again(tmp_path: Path) -> None:
    teacher, runs = classifier("roberta"), []
    teacher.register_forward_hook(lambda module, inputs, output: runs.append(len(output.logits)))

    def distil(rows: Rows, *, epochs: int = 1) -> dict[str, Tensor]:
        student = narrow()
        train(
            student,
            rows,
            collator(),
            Training(epochs=epochs),
            losses=Losses(logits=1.0),
            teacher=teacher,
            folder=tmp_path,
        )
        return weights(student)

    first = distil(encoded(), epochs=2)
    assert sum(runs) == len(LENGTHS)
    assert largest_difference(first, distil(encoded(), epochs=2)) == 0 and sum(runs) == len(LENGTHS)
    distil(encoded(seed=1))
    assert sum(runs) == 2 * len(LENGTHS), "other rows"
    next(teacher.parameters()).data[7] += 0.1
    distil(encoded())
    assert sum(runs) == 3 * len(LENGTHS), "other weights"
    assert len(list(tmp_path.glob("teacher-*.npz"))) == 3


def test_a_damaged_file_of_logits_is_made_anew(tmp_path: Path) -> None:
    teacher = classifier()
    expected = cached_logits(teacher, encoded(), collator(), tmp_path)
    (path,) = tmp_path.glob("teacher-*.npz")
    for damaged in (b"", b"PK\x03\x04 no more", path.read_bytes()[:-30]):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(cached_logits(teacher, encoded(), collator(), tmp_path), expected)
    np.testing.assert_array_equal(np.load(path)["logits"], expected)


def test_logits_are_looked_up_by_the_number_of_the_row() -> None:
    teacher, rows = classifier(), encoded()
    order = (6, 1, 4, 3)
    chosen = Rows([rows[index] for index in order], [Example("text")] * 4, 64)
    cached = CachedTeacher(predict(teacher, chosen, collator()), chosen, torch.device("cpu"))
    batch = collator()([rows[3], rows[6]])
    live = LiveTeacher(teacher, Losses(logits=1.0), None)
    torch.testing.assert_close(cached(batch).logits, live(batch).logits.float(), rtol=1e-5, atol=1e-6)
    twice = Rows([rows[1], rows[1]], [Example("text")] * 2, 64)
    with pytest.raises(UsageError, match="two training rows have the same `index`"):
        CachedTeacher(np.zeros((2, 3), np.float32), twice, torch.device("cpu"))


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
    history = train(model, encoded(), collator(), training, validation=encoded(seed=2), score=judge, folder=tmp_path, activation=Anneal(0.5))  # fmt: skip
    assert history.best == 2
    kinds = {type(module).__name__ for module in model.modules()}
    assert "ReLU" in kinds and not any("gelu" in kind.lower() or "blend" in kind.lower() for kind in kinds)
    np.testing.assert_array_equal(predict(model, encoded(seed=2), collator()), judge.logits[2])


def test_progress_is_told_in_lines_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    train(
        narrow(), encoded(), collator(), Training(epochs=2, batch_size=4),
        validation=encoded(seed=2), score=Judge(50.0, 60.0), folder=tmp_path, progress=lines.append,
    )  # fmt: skip
    assert [line.split(":")[0] for line in lines] == [
        "step 1 of 4", "step 2 of 4", "epoch 1", "step 3 of 4", "step 4 of 4", "epoch 2",
    ]  # fmt: skip
    assert lines[-2].endswith(", 0 s left") and lines[-1] == "epoch 2: 60.00 on 8 validation rows"
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir()), "no checkpoints"


def test_rows_of_similar_length_go_together_in_an_order_of_the_seed() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1003).tolist()
    sampler = LengthSampler(lengths, 8, seed=0)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(1003)) and first != second
    assert list(LengthSampler(lengths, 8, seed=0)) == first != list(LengthSampler(lengths, 8, seed=1))
    batches = [[lengths[row] for row in first[start : start + 8]] for start in range(0, 1003, 8)]
    padded = sum(len(batch) * max(batch) for batch in batches)
    assert sum(lengths) <= padded < 1.15 * sum(lengths)
    longest = [max(batch) for batch in batches]
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.3, "batches come in random order"


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
        ({"losses": Losses(attention=1.0), "teacher": classifier("mpnet")}, "adds a term for positions .position_bias."),
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs is 0; give a number above 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warmup": -0.1}, "warmup is -0.1; give a number from 0 up"),
        ({"max_steps": 0}, "max_steps is 0; give at least 1, or -1"),
        ({"schedule": "cosin"}, "there is no schedule 'cosin'; did you mean 'cosine'"),
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
