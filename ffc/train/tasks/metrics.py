"""Metrics of the tasks, from logits: accuracy, macro F1, and those of MultiRC and ReCoRD, which go by question."""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffc.errors import InputError, UsageError, nearest
from ffc.train.tasks.base import Example, Scores, Task

__all__ = ["METRICS", "normalise", "score"]

Logits = NDArray[np.float64]
Labels = NDArray[np.int64]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def score(task: Task, logits: NDArray[Any], examples: Sequence[Example]) -> Scores:
    """Score a model's logits on a task, in percent.

    Args:
        task: Says which metric, and how many labels.
        logits: The model's outputs [rows, labels], in the order of `examples`.
        examples: The rows, each with its label. All rows of a question must be among them.

    Returns:
        The main score and its parts:

        - ``accuracy``: the share of rows whose highest logit is that of their label; of equal ones the first counts.
        - ``accuracy-f1`` (CB): the mean of accuracy and macro F1 over the labels that occur, in truth or prediction.
        - ``multirc``: the mean of exact match, the share of questions with every answer judged rightly, and F1 of the
          label 1 over all answers (F1a in Khashabi et al. 2018).
        - ``record``: the mean of exact match and F1 over words, for the entity of each question with the highest
          probability of label 1, against the truth it fits best (Zhang et al. 2018, arXiv 1810.12885).

    Raises:
        UsageError: If the metric is unknown, or logits and examples are not of matching shapes.
        InputError: If a row has no label, or the model's output for it is not finite.
    """
    if task.metric not in METRICS:
        raise UsageError(f"task {task.name} has the unknown metric '{task.metric}'{nearest(task.metric, METRICS)}")
    expected = (len(examples), len(task.labels))
    if logits.shape != expected:
        raise UsageError(
            f"task {task.name}: logits are of shape {list(logits.shape)}, expected {list(expected)} for "
            f"{expected[0]} rows and {expected[1]} labels"
        )
    if not examples:
        raise InputError(f"task {task.name}: there are no rows to score; give it a validation file")
    for row, example in enumerate(examples):
        if example.label is None:
            raise InputError(f"task {task.name}: row {row} has no label, so it cannot be scored; give labelled rows")
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise InputError(
            f"task {task.name}: the model's output for row {broken[0]} is {logits[broken[0]].tolist()}, which is not "
            "finite; look for what broke its weights, such as a learning rate too high"
        )
    return METRICS[task.metric](logits.astype(np.float64), examples)


def normalise(text: str) -> str:
    """Return a free answer as it is compared: in lower case, without ASCII punctuation, articles and spare blanks.

    What SQuAD's metric does (Rajpurkar et al. 2016, arXiv 1606.05250), and ReCoRD's after it.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _accuracy(logits: Logits, examples: Sequence[Example]) -> Scores:
    share = float(np.mean(logits.argmax(axis=1) == _truth(examples)))
    return _scores(accuracy=share)


def _accuracy_f1(logits: Logits, examples: Sequence[Example]) -> Scores:
    predicted, truth = logits.argmax(axis=1), _truth(examples)
    macro = np.mean([_f1(predicted == label, truth == label) for label in np.union1d(predicted, truth)])
    return _scores(accuracy=float(np.mean(predicted == truth)), macro_f1=float(macro))


def _multirc(logits: Logits, examples: Sequence[Example]) -> Scores:
    predicted, truth = logits.argmax(axis=1), _truth(examples)
    right = predicted == truth
    matches = [bool(right[rows].all()) for rows in _questions(examples)]
    f1 = _f1(predicted == 1, truth == 1)
    return _scores(exact_match=float(np.mean(matches)), f1=f1)


def _record(logits: Logits, examples: Sequence[Example]) -> Scores:
    margin = logits[:, 1] - logits[:, 0]  # rises with the probability of label 1
    matches, overlaps = [], []
    for rows in _questions(examples):
        best = examples[rows[int(margin[rows].argmax())]]
        matches.append(max((normalise(best.answer) == normalise(truth) for truth in best.truths), default=False))
        overlaps.append(max((_word_f1(best.answer, truth) for truth in best.truths), default=0.0))
    return _scores(exact_match=float(np.mean(matches)), f1=float(np.mean(overlaps)))


METRICS: Mapping[str, Callable[[Logits, Sequence[Example]], Scores]] = {
    "accuracy": _accuracy,
    "accuracy-f1": _accuracy_f1,
    "multirc": _multirc,
    "record": _record,
}
"""What a task can be measured by: from logits [rows, labels] and labelled rows to scores."""


def _scores(**shares: float) -> Scores:
    """Return what a task is scored by, of which the mean is the main score."""
    percent = {name: 100.0 * share for name, share in shares.items()}
    return Scores(main=sum(percent.values()) / len(percent), parts=percent)


def _truth(examples: Sequence[Example]) -> Labels:
    return np.array([example.label for example in examples], dtype=np.int64)


def _questions(examples: Sequence[Example]) -> list[list[int]]:
    """Return the row numbers of each question, in the order in which questions come; a row without one is its own."""
    rows: dict[str | int, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        rows[example.group or row].append(row)
    return list(rows.values())


def _f1(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the F1 of a yes-or-no decision; zero where there is nothing to find and nothing is found."""
    found, there = int(predicted.sum()), int(truth.sum())
    return 2.0 * int((predicted & truth).sum()) / (found + there) if found + there else 0.0


def _word_f1(answer: str, truth: str) -> float:
    """Return the F1 of the words of `answer` as a multiset against those of `truth`, both normalised."""
    words, accepted = normalise(answer).split(), normalise(truth).split()
    common = sum((Counter(words) & Counter(accepted)).values())
    return 2.0 * common / (len(words) + len(accepted)) if common else 0.0
