"""The table [tool.ffc.check]: where it is found, what it may hold, and what is said of what it may not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ffc.ci.diff.changes import KINDS
from ffc.ci.lock.policy import Allowance, Policy, find, is_better, load
from ffc.errors import FfcError, InputError, UsageError
from ffc.graph.cost import Cost


def policy_of(text: str, folder: Path) -> Policy | None:
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    return load(folder / "pyproject.toml")


def test_without_a_table_every_kind_fails_but_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find() == Policy()
    assert set(KINDS) - set(Policy().fail) == {"name"}
    assert policy_of("[project]\nname = 'x'\n", tmp_path) is None


def test_a_table_says_what_fails_and_how_much_may_be(tmp_path: Path) -> None:
    text = """
    [tool.ffc.check]
    fail = ["structure", "interface"]
    improvements = false
    weights = 0.01
    locks = ["models/*.ffc.lock"]
    budget = { bytes = "120M", macs = "+2%", nodes = 450 }
    [tool.ffc.check.numerics]
    difference = 0.001
    cosine = 0.99
    agreement = 0.98
    """
    found = policy_of(text, tmp_path)
    assert found is not None
    assert found.fail == ("interface", "structure")
    assert (found.improvements, found.weights, found.locks) == (False, 0.01, ("models/*.ffc.lock",))
    assert (found.difference, found.cosine, found.agreement) == (0.001, 0.99, 0.98)
    assert {name: each.most(1000) for name, each in found.budget.items()} == {"bytes": 120_000_000, "macs": 1020, "nodes": 450}


@pytest.mark.parametrize(
    ("text", "most"), [("450", 450), ("120M", 120_000_000), ("1.5k", 1500), ("2 GB", 2 * 10**9), ("3T", 3 * 10**12), ("+2%", 1020), ("+0%", 1000), ("+ 5%", None), ("-2%", None), ("M", None), ("1e3", None), ("12 apples", None)]
)  # fmt: skip
def test_amounts_are_absolute_or_relative_to_the_lock(text: str, most: int | None, tmp_path: Path) -> None:
    table = f"[tool.ffc.check]\nbudget.nodes = '{text}'\n"
    if most is None:
        with pytest.raises(UsageError, match="wanted an amount such as 450"):
            policy_of(table, tmp_path)
    else:
        assert policy_of(table, tmp_path) is not None
        assert Allowance(text).most(1000) == most


def test_the_nearest_table_above_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    policy_of("[tool.ffc.check]\nweights = 0.5\n", tmp_path)
    policy_of("[project]\nname = 'without'\n", inner)
    assert find(inner).weights == 0.5
    assert find(inner).folder.resolve() == tmp_path


@pytest.mark.parametrize(
    ("table", "kind", "said"),
    [
        ("budgets = {}", UsageError, r"pyproject\.toml:2: unknown key 'budgets'; did you mean 'budget'\?"),
        ("[tool.ffc.check.budget]\nnode = 3", UsageError, r":3: unknown key 'node'.*did you mean 'nodes'"),
        ("[tool.ffc.check.numerics]\nrecall = 3", UsageError, "unknown key 'recall'"),
        ("fail = ['structur']", UsageError, r"'fail' is \['structur'\]; did you mean 'structure'"),
        ("fail = 'structure'", UsageError, "wanted a list of kinds"),
        ("improvements = 1", UsageError, "wanted true or false"),
        ("weights = -0.1", UsageError, "wanted a number from 0"),
        ("budget.nodes = 'few'", UsageError, r":2: 'budget.nodes' is 'few', wanted an amount such as 450, '120M', or '\+2%'"),
        ("budget.nodes = -3", UsageError, "-3, wanted an amount"),
        ("budget.nodes = true", UsageError, "budget"),
        ("numerics.cosine = 2", UsageError, "wanted a number from -1 to 1"),
        ("locks = 'a'", UsageError, "wanted a list of patterns"),
        ("weights = ", InputError, r"pyproject\.toml:2:\d+: not TOML"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_told_in_one_line_with_its_place(
    table: str, kind: type[FfcError], said: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        policy_of(f"[tool.ffc.check]\n{table}\n", tmp_path)
    assert re.search(said, str(caught.value)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["tool = 3 # ffc", "[tool]\nffc = 3", "[tool.ffc]\ncheck = 3"])
def test_a_table_that_is_none_is_told(text: str, tmp_path: Path) -> None:
    if "check" in text:
        with pytest.raises(UsageError, match="wanted a table"):
            policy_of(text, tmp_path)
    else:
        assert policy_of(text, tmp_path) is None


def test_better_is_less_of_something_and_more_of_nothing() -> None:
    was = Cost(nodes=10, parameters=10, bytes=10, macs=10, macs_unknown=0)
    assert is_better(was, Cost(9, 10, 10, 10, 0))
    assert not is_better(was, was)
    assert not is_better(was, Cost(9, 11, 10, 10, 0))
    assert not is_better(was, Cost(9, 10, 10, 9, 1))
