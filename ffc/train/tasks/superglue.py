"""The seven SuperGLUE tasks of the FastFormers paper, from SuperGLUE's own JSON lines, with the paper's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ffc.errors import nearest
from ffc.rows.records import Record
from ffc.train.tasks.base import Example, Unit
from ffc.train.tasks.metrics import normalise

__all__ = ["TASKS", "Form"]

_PLACEHOLDER = "@placeholder"
_LINK = {"cause": "because", "effect": "so"}
_NEVER_NAMES = frozenset(
    "a an the he she it they we you his her its their our my your this that these those there".split()
)


@dataclass(frozen=True)
class Form:
    """How a task is written down.

    Attributes:
        labels: Names of the labels, in the order of the logits.
        read: Makes the examples of one record, or raises `InputError`; see the functions below for the inputs.
        metric: As in `ffc.train.tasks.metrics.METRICS`.
        spans: How many spans each example has.
    """

    labels: tuple[str, ...]
    read: Callable[[Record, Sequence[str]], Unit]
    metric: str = "accuracy"
    spans: int = 0


def _boolq(record: Record, labels: Sequence[str]) -> Unit:
    """BoolQ: passage, question."""
    return _single(record, Example(record.text("passage"), record.text("question"), _label(record, labels)))


def _entailment(record: Record, labels: Sequence[str]) -> Unit:
    """CB and RTE: premise, hypothesis."""
    return _single(record, Example(record.text("premise"), record.text("hypothesis"), _label(record, labels)))


def _copa(record: Record, labels: Sequence[str]) -> Unit:
    """COPA: "premise because (or so) choice 1", the same with choice 2.

    The premise loses its final stop, and the choice's first word its capital where it cannot be a name.
    """
    question = record.text("question")
    if question not in _LINK:
        raise record.error(f"'question' is '{question[:40]}'{nearest(question, _LINK)}")
    premise = record.text("premise")
    start = f"{premise.strip().removesuffix('.')} {_LINK[question]} "
    first, second = (start + _uncapitalised(record.text(choice)) for choice in ("choice1", "choice2"))
    return Unit(record.where, (premise,), (Example(first, second, _label(record, labels)),))


def _multirc(record: Record, labels: Sequence[str]) -> Unit:
    """MultiRC: "passage question", answer; an example per answer, a group per question.

    The question stands where long texts are cut, and stays: the passage is cut before it.
    """
    passage = record.part("passage")
    text = passage.text("text")
    examples = []
    for question in passage.parts("questions"):
        query = question.text("question").strip()
        asked = f"{text.strip()} {query}"
        for answer in question.parts("answers"):
            proposed, label = answer.text("text"), _label(answer, labels)
            examples.append(Example(asked, proposed, label, group=question.place, answer=proposed, tail=len(query)))
    if not examples:
        raise record.error("the passage has no question with answers; leave it out")
    return Unit(record.where, (text,), tuple(examples))


def _record(record: Record, labels: Sequence[str]) -> Unit:
    """ReCoRD: passage, the query with an entity for @placeholder; an example per entity, a group per query.

    The marks "@highlight" that set the passage's summary apart become line ends. An entity is right that is the same as
    one of the answers in the eyes of the metric.
    """
    passage = record.part("passage")
    text = passage.text("text")
    shown = text.replace("\n@highlight\n", "\n")
    entities = [_entity(entity, text) for entity in passage.parts("entities")]
    examples = []
    for query in record.parts("qas"):
        asked = query.text("query")
        if _PLACEHOLDER not in asked:
            raise query.error(f"'query' has no {_PLACEHOLDER}; leave it out")
        labelled = bool(query.values.get("answers"))
        truths = tuple(dict.fromkeys(each.text("text") for each in query.parts("answers"))) if labelled else ()
        right = {normalise(truth) for truth in truths}
        for entity in dict.fromkeys(entities):
            label = int(normalise(entity) in right) if labelled else None
            filled = asked.replace(_PLACEHOLDER, entity)
            examples.append(Example(shown, filled, label, group=query.place, answer=entity, truths=truths))
    if not examples:
        raise record.error("the passage has no query or no entity; leave it out")
    return Unit(record.where, (text,), tuple(examples))


def _wic(record: Record, labels: Sequence[str]) -> Unit:
    """WiC: sentence 1, sentence 2, and a span of characters in each; a sentence stands first here and second there."""
    texts = record.text("sentence1"), record.text("sentence2")
    spans = []
    for part, text in enumerate(texts):
        start, end = record.integer(f"start{part + 1}"), record.integer(f"end{part + 1}")
        if not 0 <= start < end <= len(text):
            raise record.error(
                f"the span {start}:{end} is not within sentence{part + 1}, which has {len(text)} characters"
            )
        spans.append((part, start, end))
    return Unit(record.where, texts, (Example(*texts, _label(record, labels), spans=tuple(spans)),))


_TRUTH = ("false", "true")

TASKS: Mapping[str, Form] = {
    "boolq": Form(_TRUTH, _boolq),
    "cb": Form(("entailment", "contradiction", "neutral"), _entailment, metric="accuracy-f1"),
    "copa": Form(("choice1", "choice2"), _copa),
    "multirc": Form(_TRUTH, _multirc, metric="multirc"),
    "record": Form(_TRUTH, _record, metric="record"),
    "rte": Form(("entailment", "not_entailment"), _entailment),
    "wic": Form(_TRUTH, _wic, spans=2),
}
"""The tasks, by the names that `ffc.train.tasks.load` takes."""


def _single(record: Record, example: Example) -> Unit:
    return Unit(record.where, (example.first,), (example,))


def _label(record: Record, labels: Sequence[str]) -> int | None:
    """Return the label as an index: files have it as a name, as an index, or as true and false; -1 or none: unknown."""
    value = record.values.get("label")
    if value is None or value == -1:
        return None
    if isinstance(value, bool) and tuple(labels) == _TRUTH:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels):
        return value
    if isinstance(value, str) and value.lower() in labels:
        return labels.index(value.lower())
    raise record.error(f"the label {str(value)[:60]!r} is none of {', '.join(labels)}")


def _entity(entity: Record, text: str) -> str:
    """Return the text of an entity; its end is its last character, not the one after."""
    start, last = entity.integer("start"), entity.integer("end")
    if not 0 <= start <= last < len(text):
        raise entity.error(f"the entity {start}:{last} is not within the passage, which has {len(text)} characters")
    return text[start : last + 1]


def _uncapitalised(choice: str) -> str:
    choice = choice.strip()
    word = choice.split(" ")[0].lower()
    return choice[:1].lower() + choice[1:] if word in _NEVER_NAMES else choice
