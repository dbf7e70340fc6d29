"""Metrics against examples worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ffc.errors import InputError, UsageError
from ffc.train.tasks import Example, Task
from ffc.train.tasks.metrics import normalise, score

THREE = ("entailment", "contradiction", "neutral")
TWO = ("false", "true")


def task(metric: str, labels: tuple[str, ...] = TWO) -> Task:
    return Task(name="t", labels=labels, metric=metric, train=(), validation=())


def voting(predicted: Sequence[int], labels: int = 2) -> np.ndarray:
    """Return logits whose highest is that of the label predicted."""
    return np.eye(labels, dtype=np.float32)[list(predicted)] * 3 - 1


def labelled(*labels: int) -> list[Example]:
    return [Example("a text", label=label) for label in labels]


def test_accuracy_is_the_share_of_rows_that_are_right() -> None:
    found = score(task("accuracy"), voting([0, 1, 1, 1]), labelled(0, 1, 0, 1))  # 3 of 4
    assert found.main == pytest.approx(75.0)
    assert dict(found.parts) == {"accuracy": pytest.approx(75.0)}


def test_of_equal_logits_the_first_counts() -> None:
    assert score(task("accuracy"), np.zeros((2, 2)), labelled(0, 1)).main == pytest.approx(50.0)


def test_cb_is_the_mean_of_accuracy_and_macro_f1() -> None:
    # truth      0 0 0 1 1 2
    # predicted  0 0 1 1 1 0
    # accuracy 4/6; F1 of 0: 2·2/(3+3) = 2/3, of 1: 2·2/(3+2) = 4/5, of 2: 0/(0+1) = 0; macro (2/3 + 4/5)/3 = 22/45
    found = score(task("accuracy-f1", THREE), voting([0, 0, 1, 1, 1, 0], 3), labelled(0, 0, 0, 1, 1, 2))
    assert found.parts["accuracy"] == pytest.approx(100 * 4 / 6)
    assert found.parts["macro_f1"] == pytest.approx(100 * 22 / 45)
    assert found.main == pytest.approx(100 * (4 / 6 + 22 / 45) / 2)


def test_a_label_that_occurs_nowhere_is_not_in_the_macro_f1() -> None:
    # F1 of 0: 2·1/(2+1) = 2/3, of 1: 2·1/(1+2) = 2/3; label 2 is in neither truth nor prediction
    found = score(task("accuracy-f1", THREE), voting([0, 0, 1], 3), labelled(0, 1, 1))
    assert found.parts["macro_f1"] == pytest.approx(100 * 2 / 3)


def answers(*rows: tuple[str, int]) -> list[Example]:
    return [Example("passage question", "answer", label, group=group) for group, label in rows]


def test_multirc_counts_questions_that_are_wholly_right_and_f1_over_all_answers() -> None:
    # question   a a a b b c
    # truth      1 0 1 0 1 0
    # predicted  1 0 1 1 1 0   a and c are wholly right, b is not: 2/3
    # F1 of label 1: right 3, predicted 4, there 3: 6/7
    rows = answers(("a", 1), ("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0))
    found = score(task("multirc"), voting([1, 0, 1, 1, 1, 0]), rows)
    assert found.parts["exact_match"] == pytest.approx(100 * 2 / 3)
    assert found.parts["f1"] == pytest.approx(100 * 6 / 7)
    assert found.main == pytest.approx(100 * (2 / 3 + 6 / 7) / 2)


def test_answers_of_a_question_need_not_stand_together() -> None:
    rows = answers(("a", 1), ("b", 0), ("a", 1), ("b", 1))
    # a: right and wrong, b: right and right
    assert score(task("multirc"), voting([1, 0, 0, 1]), rows).parts["exact_match"] == pytest.approx(50.0)


def test_multirc_without_a_true_answer_said_or_there_has_an_f1_of_zero() -> None:
    found = score(task("multirc"), voting([0, 0]), answers(("a", 0), ("b", 0)))
    assert dict(found.parts) == {"exact_match": pytest.approx(100.0), "f1": 0.0}


def entity(group: str, answer: str, *truths: str) -> Example:
    return Example("passage", "query", label=int(answer in truths), group=group, answer=answer, truths=truths)


def test_record_takes_the_likeliest_entity_of_each_query() -> None:
    rows = [
        entity("a", "Paris", "Lyon"),
        entity("a", "Lyon", "Lyon"),
        entity("b", "the North Sea Bank", "North Bank", "Bank of Norway"),
        entity("b", "Bank of Norway", "North Bank", "Bank of Norway"),
    ]
    # p(1) rises with logit 1 − logit 0: query a has −1 and 0.5, so Lyon, which matches: 1 and 1.
    # Query b has 3 and 2, so "north sea bank", which matches none; F1 against "north bank": 2 words of 3 and of 2,
    # 2·2/5 = 0.8; against "bank of norway": 2·1/6 = 1/3; the best counts.
    logits = np.array([[9.0, 8.0], [1.0, 1.5], [-4.0, -1.0], [0.0, 2.0]])
    found = score(task("record"), logits, rows)
    assert found.parts["exact_match"] == pytest.approx(50.0)
    assert found.parts["f1"] == pytest.approx(100 * (1 + 0.8) / 2)
    assert found.main == pytest.approx((50 + 90) / 2)


def test_record_compares_words_as_often_as_they_occur() -> None:
    # "new new jersey" against "new new york": common new twice; 2·2/(3+3)
    found = score(task("record"), voting([1]), [entity("a", "New New Jersey", "New New York")])
    assert found.parts["f1"] == pytest.approx(100 * 2 / 3)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The  Beatles", "beatles"),
        ("U.S.", "us"),
        ("an Apple a day", "apple day"),
        ("Theatre", "theatre"),
        ("“Élan”", "“élan”"),  # only ASCII punctuation goes, as in SQuAD's metric
    ],
)
def test_answers_are_compared_without_case_articles_and_punctuation(text: str, same: str) -> None:
    assert normalise(text) == same


def test_logits_of_any_float_type_score_the_same() -> None:
    rows, logits = labelled(0, 1, 0), voting([0, 0, 0])
    assert score(task("accuracy"), logits.astype(np.float16), rows) == score(task("accuracy"), logits, rows)


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match=r"logits are of shape \[2, 3\], expected \[2, 2\] for 2 rows and 2 labels"):
        score(task("accuracy"), np.zeros((2, 3)), labelled(0, 1))


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="there are no rows to score"):
        score(task("accuracy"), np.zeros((0, 2)), [])


def test_rows_without_a_label_cannot_be_scored() -> None:
    with pytest.raises(InputError, match="row 1 has no label"):
        score(task("accuracy"), np.zeros((2, 2)), [Example("a", label=0), Example("b")])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_whose_output_is_not_finite_is_no_model_to_score(value: float) -> None:
    logits = np.zeros((3, 2))
    logits[1, 0] = value
    with pytest.raises(InputError, match=r"output for row 1 is .* not finite"):
        score(task("accuracy"), logits, labelled(0, 1, 0))


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'accuracy'"):
        score(task("acuracy"), np.zeros((1, 2)), labelled(0))
