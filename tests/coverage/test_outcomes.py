"""How outcomes of compiles are told apart: no fault may pass for a good end, and none is in what the long runs recorded."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import ffc
from tests.coverage.apart import EndedError, apart
from tests.coverage.backend import MOST_REFUSED, NAMED, PASSES
from tests.coverage.outcomes import Case, Outcome, Tally, apart_by, judged, reason_of
from tests.coverage.random_graphs import passes_of

RESULTS = Path(__file__).parent / "results"


def relu(op_type: str = "Relu") -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node(op_type, ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_result_comes_back_and_a_process_that_dies_or_hangs_is_told() -> None:
    assert apart(lambda: {"one": 1}, 30) == {"one": 1}
    with pytest.raises(EndedError, match="SIGKILL"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL), 30)
    with pytest.raises(EndedError, match="longer than 1 s"):
        apart(lambda: time.sleep(60), 1)
    with pytest.raises(EndedError, match="exit code 70"):
        apart(lambda: 1 / 0, 30)


def test_a_model_is_right_refused_or_not_run_by_onnxruntime_itself() -> None:
    feeds = [{"x": np.array([[-1, 0, 2]], np.float32)}]
    assert judged(Case("right", relu(), [], feeds), "fuse").ending == "right"
    refused = judged(Case("refused", relu(), [], feeds), "fuze")
    assert (refused.ending, refused.reason) == ("refused", "other")
    assert "did you mean 'fuse'" in refused.message
    strange = judged(Case("strange", relu("Strange"), [], feeds), "fuse")
    assert (strange.ending, strange.reason) == ("not run", "operator")


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ([1.0, 2.0, 3.0], ""),
        ([1.0, 2.0, 3.0001], ""),
        ([1.0, 2.0, 3.001], "of the scale apart"),
        ([1.0, 2.0, np.nan], "finite"),
        ([1.0, 2.0], "wanted is float64 [3]"),
        ([[1.0, 2.0, 3.0]], "wanted is float64 [3]"),
        (np.float32([1, 2, 3]), "float32 [3]"),
        (None, "NoneType"),
    ],
)
def test_outputs_that_differ_are_told(other: Any, fault: str) -> None:
    found = apart_by({"y": np.array([1.0, 2.0, 3.0])}, {"y": other if other is None else np.asarray(other)}, 1e-4)
    assert fault in found and bool(found) == bool(fault)


def test_half_is_held_to_what_it_rounds() -> None:
    one = np.array([1.0, 2.0, 3.0])
    assert not apart_by({"y": one.astype(np.float16)}, {"y": np.float16([1, 2, 3.004])}, 1e-4)
    assert "apart" in apart_by({"y": one.astype(np.float16)}, {"y": np.float16([1, 2, 3.01])}, 1e-4)


def test_rounding_may_turn_an_output_but_little() -> None:
    one = {"y": np.array([1.0, 2.0, 3.0])}
    assert not apart_by(one, {"y": np.array([1.1, 2.0, 2.9])}, None)
    assert "cosine" in apart_by(one, {"y": np.array([3.0, 2.0, -1.0])}, None)
    assert "others" in apart_by({"y": np.arange(5)}, {"y": np.arange(5)[::-1]}, None)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("node 'n' (Relu) has no kernel", "operator"),
        ("opset 6 is too old; convert the model", "opset"),
        ("`opset` failed", "other"),
        ("input 'x' is of type FLOAT8E4M3FN", "type"),
        ("a sequence of tensors is not proved", "type"),
        ("no probe can be made for 'x'", "other"),
        ("the model runs on none of the inputs made for it: onnxruntime fails on x [2]: Relu node", "no inputs"),
    ],
)
def test_a_reason_is_what_a_refusal_names(message: str, reason: str) -> None:
    assert reason_of(message, relu()) == reason


def test_a_budget_may_be_missed_and_an_equality_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("gate", relu(), [], [{"x": np.ones((1, 3), np.float32)}])

    def ended(error: Exception) -> tuple[str, str]:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(ffc, "compile", fail)
        found = judged(case, "fuse")
        return found.ending, found.reason

    assert ended(ffc.GateError("pass 'int8': mean cosine 0.4 is below the budget of 0.95")) == ("refused", "budget")
    assert ended(ffc.GateError("pass 'lower': outputs differ by 0.5 of their scale")) == ("gate", "contract")
    assert ended(ffc.FfcError("a bug")) == ("traceback", "exit code 70")
    assert ended(IndexError("tuple index out of range")) == ("traceback", "IndexError")


def test_what_may_not_happen_is_a_fault() -> None:
    endings = ("right", "refused", "not run", "gate", "wrong", "traceback", "ended")
    found = Tally([Outcome(name, name) for name in endings])
    assert [each.ending for each in found.faults] == ["gate", "wrong", "traceback", "ended"]
    assert found.counts == dict.fromkeys(endings, 1)


def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    assert sum(found["endings"].values()) == found["cases"]
    assert sum(found["refused"].values()) == found["endings"].get("refused", 0)
    return found


def test_of_onnx_backend_tests_none_is_lost_but_for_an_operator_an_opset_or_a_type() -> None:
    found = record("backend.json")
    assert found["passes"] == PASSES and found["cases"] >= 1900
    assert found["endings"].keys() == {"right", "refused", "not run"}
    assert found["refused"].keys() <= NAMED and found["endings"]["refused"] <= MOST_REFUSED


def test_a_thousand_random_graphs_are_right_or_refused() -> None:
    found = record("random_graphs.json")
    assert (found["start"], found["cases"], found["passes"]) == (0, 1000, [passes_of(0), passes_of(1)])
    assert found["endings"].keys() <= {"right", "refused"}
    assert found["refused"].keys() <= NAMED | {"budget"}
