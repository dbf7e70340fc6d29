"""Tasks of the hub come through `datasets`, which stands in here with small data sets of its own making."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ffc.errors import InputError, MissingError, UsageError
from ffc.train.tasks import Example
from tests.train.tiny import load

datasets = pytest.importorskip("datasets")

NAMES = datasets.ClassLabel(names=["worse", "better"])
Hub = Callable[[Mapping[tuple[str, str | None], Any]], list[tuple[str, str | None]]]


def rows(kind: Any = NAMES, **columns: list[Any]) -> Any:
    """Return a data set of these columns, of which `label` is of the kind given."""
    kinds = {
        name: datasets.Value("int32" if isinstance(values[0], int) else "string") for name, values in columns.items()
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds | {"label": kind}))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Return a function that sets what the hub holds; it returns the list of what is asked for."""

    def hold(held: Mapping[tuple[str, str | None], Any]) -> list[tuple[str, str | None]]:
        asked = []

        def load_dataset(path: str, config: str | None) -> Any:
            asked.append((path, config))
            if (path, config) not in held:
                raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' does not\nexist")
            return held[path, config]

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return hold


SINGLE = datasets.DatasetDict(
    train=rows(sentence=["dull", "crisp"], idx=[0, 1], label=[0, 1]),
    validation=rows(sentence=["brisk"], idx=[0], label=[1]),
    test=rows(sentence=["wet"], idx=[0], label=[-1]),
)


def test_a_data_set_gives_texts_and_the_names_of_its_labels(hub: Hub) -> None:
    hub({("weather", None): SINGLE})
    task = load("hub:weather")
    assert (task.name, task.labels, task.metric) == ("hub:weather", ("worse", "better"), "accuracy")
    assert task.train == (Example("dull", label=0), Example("crisp", label=1))
    assert task.validation == (Example("brisk", label=1),)


@pytest.mark.parametrize(
    ("name", "held", "asked"),
    [
        ("hub:weather", ("weather", None), [("weather", None)]),
        ("hub:ann/weather", ("ann/weather", None), [("ann/weather", None)]),
        ("hub:weather/hourly", ("weather", "hourly"), [("weather/hourly", None), ("weather", "hourly")]),
        ("hub:ann/weather/hourly", ("ann/weather", "hourly"), [("ann/weather", "hourly")]),
        ("HUB:ann/weather/hourly", ("ann/weather", "hourly"), [("ann/weather", "hourly")]),
    ],
)
def test_a_name_may_have_an_owner_and_a_configuration(
    hub: Hub, name: str, held: tuple[str, str | None], asked: list[tuple[str, str | None]]
) -> None:
    seen = hub({held: SINGLE})
    assert len(load(name).train) == 2
    assert seen == asked


def test_pairs_are_the_two_columns_of_text(hub: Hub) -> None:
    pairs = datasets.DatasetDict(train=rows(premise=["a", "b", "c"], hypothesis=["d", "e", "f"], label=[0, 1, 0]))
    hub({("nli", None): pairs})
    task = load("hub:nli", validation_share=0.4, seed=3)
    assert (len(task.train), len(task.validation)) == (2, 1)  # no validation split: a third is set apart
    assert {(row.first, row.second) for row in (*task.train, *task.validation)} == {("a", "d"), ("b", "e"), ("c", "f")}
    assert load("hub:nli", text=["hypothesis"]).train[0].second is None


def test_labels_without_names_are_derived(hub: Hub) -> None:
    data = rows(datasets.Value("string"), sentence=["a", "b"], label=["up", "down"])
    hub({("moves", None): datasets.DatasetDict(train=data, dev=data)})
    task = load("hub:moves")
    assert (task.labels, [row.label for row in task.train]) == (("down", "up"), [1, 0])
    assert len(task.validation) == 2


def test_names_that_are_numbers_are_not_taken_for_indices(hub: Hub) -> None:
    data = rows(datasets.ClassLabel(names=["1", "0"]), sentence=["a", "b"], label=[0, 1])
    hub({("odd", None): datasets.DatasetDict(train=data, validation=data)})
    assert [row.label for row in load("hub:odd").train] == [0, 1]


def test_given_names_replace_those_of_the_data_set(hub: Hub) -> None:
    hub({("weather", None): SINGLE})
    task = load("hub:weather", labels=["bad", "good"])
    assert (task.labels, [row.label for row in task.train]) == (("bad", "good"), [0, 1])


def test_what_is_not_there_is_refused_with_advice(hub: Hub) -> None:
    hub({})
    with pytest.raises(InputError) as caught:
        load("hub:weather")
    assert str(caught.value) == (
        "cannot load hub:weather (DatasetNotFoundError: Dataset 'weather' does not exist); check name, configuration "
        'and network, or save the rows as .tsv, .csv or .jsonl and use the task "text"'
    )


def test_without_the_package_the_advice_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        MissingError, match="data sets of the hub need datasets; install it with pip install datasets, or save the rows as"
    ):
        load("hub:weather")


@pytest.mark.parametrize(
    ("data", "arguments", "error", "message"),
    [
        (SINGLE, {"text": ["sentense"]}, InputError, "has no column 'sentense'; did you mean 'sentence'"),
        (SINGLE, {"label": "labels"}, InputError, "has no column 'labels'; did you mean 'label'"),
        (SINGLE, {"folder": "x"}, UsageError, "takes no folder"),
        (SINGLE, {"train": "x.tsv"}, UsageError, "takes no train"),
        (SINGLE, {"text": ["idx"]}, InputError, r"hub:weather, train:row 0: 'idx' is 0, expected a text"),
        (datasets.DatasetDict(test=SINGLE["test"]), {}, InputError, "has no split 'train' but test"),
        (datasets.DatasetDict(train=SINGLE["test"].select([])), {}, InputError, "has no rows in its split 'train'"),
        (datasets.DatasetDict(train=SINGLE["test"]), {}, InputError, "all rows are on the same text"),
        (
            datasets.DatasetDict(train=SINGLE["test"], validation=SINGLE["test"]),
            {},
            InputError,
            "hub:weather, train:row 0: has no label, or -1",
        ),
        (
            datasets.DatasetDict(train=rows(a=["x"], b=["y"], c=["z"], label=[0])),
            {},
            UsageError,
            "which columns hold the text",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused(
    hub: Hub, data: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    hub({("weather", None): data})
    with pytest.raises(error, match=message):
        load("hub:weather", **arguments)


@pytest.mark.parametrize("name", ["hub:", "hub:a//b", "hub:a/b/c/d", "hub:a/"])
def test_a_malformed_name_is_refused(hub: Hub, name: str) -> None:
    hub({})
    with pytest.raises(UsageError, match="is no name on the hub"):
        load(name)
