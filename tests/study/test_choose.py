"""The choice: the smallest system that is accurate enough."""

from __future__ import annotations

import dataclasses

from ffc.study.choose import choose
from ffc.study.report.summary import Form, System


def system(name: str, accuracy: float, bytes: int, macs: int = 1) -> System:
    """Return a system whose compiled form is as given, and whose fp32 form is perfect."""

    def form(score: float) -> Form:
        return Form("model.onnx", score, {}, 1.0, 1, macs, bytes)

    return System(name, "student", name, "", "", "", (1,), (1,), form(100.0), form(accuracy), "", {}, 0)


def test_the_smallest_within_the_budget_is_chosen() -> None:
    systems = [system("teacher", 100.0, 9), system("good", 98.0, 5), system("small", 97.5, 4), system("tiny", 97.4, 1)]
    chosen, reason = choose(systems, 2.5)
    assert chosen.name == "small"
    assert reason == "the smallest of 3 of 4 systems within 2.5 points of the teacher: 97.50, 2.50 below it"


def test_a_choice_that_was_not_compiled_says_so() -> None:
    refused = dataclasses.replace(system("small", 97.5, 4), refused="int8: cosine 0.8")
    chosen, reason = choose([system("teacher", 100.0, 9), refused], 2.5)
    assert chosen == refused
    assert reason.endswith("97.50, 2.50 below it; its compile was refused, so it is as exported")


def test_of_equal_sizes_the_one_with_less_work_is_chosen() -> None:
    systems = [system("teacher", 100.0, 9), system("slow", 99.0, 4, macs=3), system("fast", 99.0, 4, macs=2)]
    assert choose(systems, 2.5)[0].name == "fast"


def test_rounding_of_a_percentage_decides_nothing() -> None:
    systems = [system("teacher", 100.0, 9), system("small", 100.0 - 0.1 - 0.2 - 1e-12, 4)]
    assert choose(systems, 0.3)[0].name == "small"


def test_where_none_is_within_the_budget_the_most_accurate_is_chosen() -> None:
    systems = [system("teacher", 90.0, 9), system("good", 99.0, 5), system("bad", 50.0, 1)]
    chosen, reason = choose(systems, 0.5)
    assert chosen.name == "good"
    assert reason == (
        "no system is within 0.5 points of the teacher, and this is the most accurate: 99.00, 1.00 below it"
    )
