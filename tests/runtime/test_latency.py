"""Latency side by side, energy counters, and the class of a machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ffc.errors import UsageError
from ffc.runtime import energy
from ffc.runtime.latency import latency, sample
from ffc.runtime.machine import machine


def test_every_system_answers_every_query_in_every_round_and_the_order_turns() -> None:
    asked: list[tuple[str, int]] = []
    found = latency({name: lambda query, name=name: asked.append((name, query)) for name in "abc"}, 2, rounds=2)
    order = [name for name, query in asked if query == 0]
    assert "".join(order) == "abc" + "bca" + "cab"  # the first round warms up
    assert [query for _, query in asked] == [0, 1] * 9
    assert {name: len(each.rounds) for name, each in found.items()} == {"a": 2, "b": 2, "c": 2}


def test_waiting_takes_time_but_no_core() -> None:
    found = latency({"waits": lambda _: time.sleep(0.02), "works": lambda _: _work(0.02)}, 3, rounds=3)
    assert found["waits"].seconds >= 0.06
    assert found["waits"].core_seconds < 0.03
    assert found["works"].core_seconds > 0.05


def _work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_median_leaves_out_what_hits_one_round() -> None:
    waits = iter([0.0, 0.0, 0.2, 0.0])
    assert latency({"a": lambda _: time.sleep(next(waits))}, 1, rounds=3)["a"].seconds < 0.1


def test_each_round_is_told() -> None:
    told: list[tuple[object, ...]] = []
    latency({"a": lambda _: None}, 1, rounds=2, progress=lambda *each: told.append(each))
    assert told == [
        ("measuring, a round to warm up", 0, 0), ("measuring, round 1 of 2", 1, 2), ("measuring, round 2 of 2", 2, 2),
    ]  # fmt: skip


def test_threads_of_torch_are_given_back() -> None:
    import torch

    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        latency({"a": lambda _: seen.append(torch.get_num_threads())}, 1, rounds=1)
        assert (seen, torch.get_num_threads()) == ([1, 1], 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("queries", "rounds"), [(0, 1), (1, 0)])
def test_nothing_to_measure_is_refused(queries: int, rounds: int) -> None:
    with pytest.raises(UsageError, match=f"cannot measure {queries} queries in {rounds} rounds"):
        latency({}, queries, rounds=rounds)


def test_a_sample_is_spread_over_all_rows() -> None:
    assert sample(10, 4) == (0, 2, 5, 7)
    assert sample(3, 100) == (0, 1, 2)


def package(folder: Path, name: str, now: int, turn: int = 1000) -> None:
    zone = folder / name
    zone.mkdir()
    (zone / "energy_uj").write_text(f"{now}\n")
    (zone / "max_energy_range_uj").write_text(f"{turn}\n")


def test_energy_is_that_of_all_packages_over_the_turn_of_a_counter(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", 900)
    package(tmp_path, "intel-rapl:0:0", 5)  # its cores, which the package includes
    package(tmp_path, "intel-rapl:1", 100)
    found = energy.counters(tmp_path)
    before = energy.read(found)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("50")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("130")
    assert energy.joules(before, energy.read(found)) == pytest.approx((150 + 30) * 1e-6)


def test_energy_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    assert energy.counters(tmp_path) == ()
    assert energy.joules({}, {}) is None


def test_a_machine_is_told_by_its_class(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Some CPU\nflags\t\t: sse avx2 fma\n\nmodel name\t: Another\n")
    found = machine(cpuinfo)
    assert (found.processor, found.flags) == ("Some CPU", ("avx2", "fma"))
    assert "onnxruntime" in found.versions
    assert str(found).startswith(f"Some CPU (avx2 fma), {found.cores} core")
