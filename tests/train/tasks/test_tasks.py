"""Tasks are read as their publishers write them down, and broken files are refused by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ffc.errors import InputError, UsageError
from ffc.train.tasks import Example
from tests.train.tiny import load

BOOLQ = {"passage": "Moss grows on stones.", "question": "does moss grow", "label": True, "idx": 0}
RTE = {"premise": "It rained all day.", "hypothesis": "The day was dry.", "label": "not_entailment"}
CB = {"premise": "Did they win? I doubt it.", "hypothesis": "they won", "label": "contradiction"}
COPA = {"premise": "The cup broke.", "choice1": "It fell.", "choice2": "Ann smiled.", "question": "cause", "label": 0}
MULTIRC = {
    "passage": {
        "text": "Otters swim. They eat fish. ",
        "questions": [
            {"question": "What do they eat?", "answers": [{"text": "Fish", "label": 1}, {"text": "Hay", "label": 0}]},
            {"question": "Do they swim?", "answers": [{"text": "Yes", "label": 1}]},
        ],
    }
}
RECORD_TEXT = "Ada met Bo in Rome.\n@highlight\nBo left the Rome team"
RECORD = {
    "passage": {
        "text": RECORD_TEXT,
        # the ends are those of the last character: Ada, Bo, Rome, Bo again, "the Rome"
        "entities": [
            {"start": 0, "end": 2},
            {"start": 8, "end": 9},
            {"start": 14, "end": 17},
            {"start": 31, "end": 32},
            {"start": 39, "end": 46},
        ],
    },
    "qas": [{"query": "@placeholder is where @placeholder lies.", "answers": [{"text": "Rome"}, {"text": "Rome"}]}],
}
WIC = {
    "word": "light", "sentence1": "A light bag.", "sentence2": "Lights went out.",
    "start1": 2, "end1": 7, "start2": 0, "end2": 6, "label": False,
}  # fmt: skip


def lines(path: Path, *records: Any) -> Path:
    """Write records as JSON lines; a text goes in as it is."""
    texts = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def folder(path: Path, *records: Any) -> Path:
    """Write a SuperGLUE folder with the same rows to train and to validate on."""
    lines(path / "train.jsonl", *records)
    lines(path / "val.jsonl", *records)
    return path


def only(name: str, path: Path, record: Any) -> tuple[Example, ...]:
    return load(name, folder(path, record)).validation


def test_boolq_is_passage_and_question(tmp_path: Path) -> None:
    task = load("BoolQ", folder(tmp_path, BOOLQ, BOOLQ | {"label": False}))
    assert (task.name, task.labels, task.metric, task.spans) == ("boolq", ("false", "true"), "accuracy", 0)
    assert task.train == (
        Example("Moss grows on stones.", "does moss grow", 1),
        Example("Moss grows on stones.", "does moss grow", 0),
    )


@pytest.mark.parametrize(
    ("name", "record", "labels", "label"),
    [
        ("rte", RTE, ("entailment", "not_entailment"), 1),
        ("rte", RTE | {"label": 0}, ("entailment", "not_entailment"), 0),
        ("cb", CB, ("entailment", "contradiction", "neutral"), 1),
        ("cb", CB | {"label": "neutral"}, ("entailment", "contradiction", "neutral"), 2),
    ],
)
def test_entailment_is_premise_and_hypothesis(
    tmp_path: Path, name: str, record: dict[str, Any], labels: tuple[str, ...], label: int
) -> None:
    task = load(name, folder(tmp_path, record))
    assert task.labels == labels
    assert task.train == (Example(str(record["premise"]), str(record["hypothesis"]), label),)
    assert task.metric == ("accuracy-f1" if name == "cb" else "accuracy")


@pytest.mark.parametrize(("value", "label"), [(True, 1), (False, 0), (1, 1), (0, 0), ("true", 1), ("False", 0)])
def test_labels_may_be_truth_values_indices_or_names(tmp_path: Path, value: object, label: int) -> None:
    assert only("boolq", tmp_path, BOOLQ | {"label": value})[0].label == label


def test_copa_is_one_pair_of_premise_with_each_choice(tmp_path: Path) -> None:
    cause, effect = load("copa", folder(tmp_path, COPA, COPA | {"question": "effect", "label": 1})).train
    # "It" cannot be a name and loses its capital, "Ann" may be one and keeps it
    assert cause == Example("The cup broke because it fell.", "The cup broke because Ann smiled.", 0)
    assert effect == Example("The cup broke so it fell.", "The cup broke so Ann smiled.", 1)


def test_copa_keeps_the_capital_of_i(tmp_path: Path) -> None:
    example = only("copa", tmp_path, COPA | {"choice1": "I fell.", "choice2": "  My arm hurt."})[0]
    assert example.first.endswith("because I fell.")
    assert example.second == "The cup broke because my arm hurt."


def test_multirc_has_a_row_per_answer_and_a_group_per_question(tmp_path: Path) -> None:
    task = load("multirc", folder(tmp_path, MULTIRC, MULTIRC))
    assert [row.label for row in task.train] == [1, 0, 1, 1, 0, 1]
    assert task.train[0].first == "Otters swim. They eat fish. What do they eat?"
    assert [row.second for row in task.train[:3]] == ["Fish", "Hay", "Yes"]
    groups = [row.group for row in task.train]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 4  # the second passage's questions are others, though they read the same
    assert task.metric == "multirc"


def test_the_question_of_multirc_stays_where_the_passage_is_cut(tmp_path: Path) -> None:
    for row in load("multirc", folder(tmp_path, MULTIRC)).train:
        assert row.first[-row.tail :] in [question["question"] for question in MULTIRC["passage"]["questions"]]


def test_a_query_without_answers_has_no_labels(tmp_path: Path) -> None:
    asked = RECORD | {"qas": [RECORD["qas"][0] | {"answers": []}]}
    folder(tmp_path, RECORD)
    lines(tmp_path / "val.jsonl", asked)
    assert {(row.label, row.truths) for row in load("record", tmp_path).validation} == {(None, ())}


def test_record_has_a_row_per_entity_filled_in(tmp_path: Path) -> None:
    rows = only("record", tmp_path, RECORD)
    assert [row.answer for row in rows] == ["Ada", "Bo", "Rome", "the Rome"]  # Bo once
    assert [row.label for row in rows] == [0, 0, 1, 1]  # right as the metric sees it, articles aside
    assert rows[2].second == "Rome is where Rome lies."
    assert rows[0].first == "Ada met Bo in Rome.\nBo left the Rome team"
    assert {row.truths for row in rows} == {("Rome",)}
    assert len({row.group for row in rows}) == 1


def test_wic_has_a_span_in_each_sentence(tmp_path: Path) -> None:
    task = load("wic", folder(tmp_path, WIC))
    assert task.spans == 2
    assert task.train == (Example("A light bag.", "Lights went out.", 0, spans=((0, 2, 7), (1, 0, 6))),)


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        ("boolq", "{oops", r"train\.jsonl:2: is not JSON"),
        ("boolq", "[" * 100_000, r"train\.jsonl:2: is not JSON"),
        ("boolq", [1], r"train\.jsonl:2: is JSON but not an object"),
        ("boolq", {"passages": "a", "question": "b"}, r"train\.jsonl:2: there is no 'passage'; did you mean 'passages'"),
        ("boolq", BOOLQ | {"question": 3}, r"train\.jsonl:2: 'question' is 3, expected a text"),
        ("boolq", BOOLQ | {"question": "\ud800"}, r"train\.jsonl:2: 'question' holds a lone surrogate at character 0"),
        ("boolq", BOOLQ | {"label": 2}, r"train\.jsonl:2: the label '2' is none of false, true"),
        ("boolq", BOOLQ | {"label": 1.0}, r"train\.jsonl:2: the label '1\.0' is none of false, true"),
        ("rte", RTE | {"label": "entails"}, r"train\.jsonl:2: the label 'entails' is none of entailment, not_ent"),
        ("rte", RTE | {"label": True}, r"train\.jsonl:2: the label 'True' is none of"),
        ("copa", COPA | {"question": "causes"}, r"train\.jsonl:2: 'question' is 'causes'; did you mean 'cause'"),
        ("wic", WIC | {"end2": 17}, r"train\.jsonl:2: the span 0:17 is not within sentence2, which has 16 char"),
        ("wic", WIC | {"start1": -1}, r"train\.jsonl:2: the span -1:7 is not within sentence1"),
        ("wic", WIC | {"start1": 7}, r"train\.jsonl:2: the span 7:7 is not within sentence1"),
        ("wic", WIC | {"start1": True}, r"train\.jsonl:2: 'start1' is true, expected an integer"),
        ("multirc", {"passage": "text"}, r'train\.jsonl:2: \'passage\' is "text", expected an object'),
        ("multirc", {"passage": {"text": "a", "questions": [1]}}, r"jsonl:2, passage: 'questions' is \[1\], expected a"),
        ("multirc", {"passage": {"text": "a", "questions": []}}, r"jsonl:2: the passage has no question with answers"),
        ("record", RECORD | {"qas": [{"query": "who"}]}, r"jsonl:2, qas\[0\]: 'query' has no @placeholder"),
        ("record", RECORD | {"qas": []}, r"jsonl:2: the passage has no query or no entity"),
        (
            "record",
            RECORD | {"passage": {"text": "abc", "entities": [{"start": 1, "end": 3}]}},
            r"jsonl:2, passage, entities\[0\]: the entity 1:3 is not within the passage, which has 3 characters",
        ),
    ],
)  # fmt: skip
def test_broken_rows_name_file_and_line(tmp_path: Path, name: str, record: Any, message: str) -> None:
    good = {"boolq": BOOLQ, "rte": RTE, "copa": COPA, "wic": WIC, "multirc": MULTIRC, "record": RECORD}[name]
    with pytest.raises(InputError, match=message):
        load(name, folder(tmp_path, good, record))


@pytest.mark.parametrize("label", [-1, None])
def test_rows_without_a_label_are_read_and_not_trained_on(tmp_path: Path, label: int | None) -> None:
    good = lines(tmp_path / "good.jsonl", BOOLQ)
    bare = lines(tmp_path / "bare.jsonl", BOOLQ, BOOLQ | {"label": label})
    assert [row.label for row in load("boolq", train=good, validation=bare).validation] == [1, None]
    assert [row.label for row in load("boolq", validation=bare).validation] == [1, None]
    with pytest.raises(InputError, match=r"bare\.jsonl:2: has no label, or -1, and cannot be trained on"):
        load("boolq", train=bare, validation=good)


def test_the_test_rows_of_record_and_multirc_have_no_labels(tmp_path: Path) -> None:
    bare = RECORD | {"qas": [{"query": "@placeholder left"}]}
    row, *_ = load("record", validation=lines(tmp_path / "record.jsonl", bare)).validation
    assert (row.label, row.truths, row.second) == (None, (), "Ada left")
    question = {"question": "Why?", "answers": [{"text": "So"}]}
    passage = {"passage": {"text": "Rain fell.", "questions": [question]}}
    (row,) = load("multirc", validation=lines(tmp_path / "multirc.jsonl", passage)).validation
    assert (row.label, row.second) == (None, "So")


def test_a_validation_file_alone_is_nothing_to_train_on(tmp_path: Path) -> None:
    task = load("rte", validation=lines(tmp_path / "val.jsonl", RTE))
    assert task.train == ()
    assert len(task.validation) == 1


def many(count: int) -> list[dict[str, Any]]:
    return [BOOLQ | {"passage": f"passage {number // 3}", "question": f"question {number}"} for number in range(count)]


def test_a_folder_without_validation_rows_splits_its_training_rows(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", *many(90))
    task = load("boolq", tmp_path, validation_share=0.2)
    assert (len(task.train), len(task.validation)) == (72, 18)
    assert not {row.first for row in task.train} & {row.first for row in task.validation}  # no passage on both sides
    assert {row.second for row in (*task.train, *task.validation)} == {f"question {number}" for number in range(90)}


def test_a_split_depends_on_the_seed_and_not_on_the_order(tmp_path: Path) -> None:
    rows = many(90)
    straight = lines(tmp_path / "a.jsonl", *rows)
    backwards = lines(tmp_path / "b.jsonl", *rows[::-1])
    one, same = load("boolq", train=straight), load("boolq", train=backwards)
    assert one.validation == same.validation[::-1]
    assert one.validation != load("boolq", train=straight, seed=1).validation
    assert one == load("boolq", train=straight)


def test_a_split_never_parts_the_questions_on_a_passage(tmp_path: Path) -> None:
    passages = [
        {"passage": MULTIRC["passage"] | {"text": f"Otters swim. They eat fish {number // 2}."}} for number in range(20)
    ]
    task = load("multirc", train=lines(tmp_path / "train.jsonl", *passages), validation_share=0.3)
    sides = [{row.first.rpartition(".")[0] for row in rows} for rows in (task.train, task.validation)]
    assert [len(side) for side in sides] == [7, 3]
    assert not sides[0] & sides[1]


def test_no_sentence_of_wic_stands_on_both_sides_of_a_split(tmp_path: Path) -> None:
    """Each sentence is compared with the next, first in one row and second in the other, in groups of four."""
    rows = [
        WIC | {"sentence1": f"Light {group} {place}.", "sentence2": f"Light {group} {place + 1}."}
        | {"start1": 0, "end1": 5, "start2": 0, "end2": 5}
        for place in range(4) for group in range(10)
    ]  # fmt: skip
    task = load("wic", train=lines(tmp_path / "train.jsonl", *rows), validation_share=0.3)
    sides = [{text for row in rows for text in (row.first, row.second)} for rows in (task.train, task.validation)]
    assert (len(task.train), len(task.validation)) == (28, 12)
    assert not sides[0] & sides[1]


def test_the_smallest_text_is_set_apart_where_none_is_within_the_share(tmp_path: Path) -> None:
    rows = many(9)[:8]  # passages with 3, 3 and 2 questions; a tenth of eight rows is one
    assert len(load("boolq", train=lines(tmp_path / "train.jsonl", *rows)).validation) == 2


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(UsageError, match=r"validation_share is .*, wanted a number between 0 and 1"):
        load("boolq", train=lines(tmp_path / "train.jsonl", *many(9)), validation_share=share)


def test_rows_on_one_text_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all rows are on the same text"):
        load("boolq", train=lines(tmp_path / "train.jsonl", BOOLQ, BOOLQ))


def test_samples_are_seeded_in_order_and_nested(tmp_path: Path) -> None:
    path = folder(tmp_path, *many(60))
    whole = load("boolq", path).train
    small, large = (load("boolq", path, train_rows=count).train for count in (10, 25))
    assert (len(small), len(large)) == (10, 25)
    assert set(small) < set(large) < set(whole)
    assert list(large) == [row for row in whole if row in set(large)]
    assert small != load("boolq", path, train_rows=10, seed=1).train
    assert len(load("boolq", path, train_rows=1000, validation_rows=7).train) == 60
    assert len(load("boolq", path, validation_rows=7).validation) == 7


def test_a_sample_takes_whole_questions(tmp_path: Path) -> None:
    whole = load("multirc", folder(tmp_path, *[MULTIRC] * 30))
    for count in range(1, 12):
        sample = load("multirc", tmp_path, validation_rows=count).validation
        assert count <= len(sample) <= count + 1  # a question has two answers at most
        groups = {row.group for row in sample}
        assert [row for row in whole.validation if row.group in groups] == list(sample)


@pytest.mark.parametrize(("task", "record"), [("multirc", MULTIRC), ("record", RECORD)])
def test_a_sample_does_not_depend_on_where_the_files_are(
    task: str, record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [record | {"passage": record["passage"] | {"text": f"{record['passage']['text']} {i}."}} for i in range(20)]
    for name in ("one", "other"):
        Path(name).mkdir()
        folder(Path(name), *texts)
    one, other, absolute = (
        load(task, path, validation_rows=6) for path in (Path("one"), Path("other"), tmp_path / "one")
    )
    assert one.validation == other.validation == absolute.validation
    assert one.train == other.train == absolute.train


def test_a_sample_of_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="train_rows is 0, wanted a whole number from 1"):
        load("boolq", folder(tmp_path, BOOLQ), train_rows=0)


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"there is no task 'bolq' here; hub:NAME .*; did you mean 'boolq'"):
        load("bolq")


def test_a_task_needs_its_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="task rte needs data; name the folder"):
        load("rte")
    with pytest.raises(InputError, match=r"there is neither train\.jsonl nor val\.jsonl in"):
        load("rte", tmp_path)
    with pytest.raises(InputError, match=r"cannot read .*gone\.jsonl: No such file"):
        load("rte", train=tmp_path / "gone.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match="it is no regular file"):
        load("rte", train=tmp_path / "folder.jsonl")


@pytest.mark.parametrize(
    "arguments", [{"labels": ["a", "b"]}, {"text": ["a"]}, {"label": "gold"}, {"train": Path("x.jsonl")}]
)
def test_what_a_task_does_not_take_is_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"takes no {next(iter(arguments))}; leave it out"):
        load("rte", folder(tmp_path, RTE), **arguments)
