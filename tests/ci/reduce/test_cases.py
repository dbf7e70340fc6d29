"""The parts of a search: what is minimal, which failures are one, what is cut, and processes that die."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffc.ci.reduce.cases import child, shrinking
from ffc.ci.reduce.cases.cutting import Anatomy
from ffc.ci.reduce.cases.deltas import first_that_holds, minimise
from ffc.ci.reduce.cases.failure import Failure
from ffc.errors import CannotApplyError, GateError
from ffc.graph.text import text
from tests.graphs import encoder

MOVED = "outputs differ by 0.2 of their scale, more than 0.0001, on output 'a' of probe 'full 1x8'; nothing was written"


@given(st.sets(st.integers(0, 40), max_size=6), st.integers(41, 60))
def test_what_is_needed_is_what_is_left(needed: set[int], count: int) -> None:
    assert minimise(range(count), lambda kept: needed <= set(kept)) == sorted(needed)


def test_of_two_that_do_as_well_one_is_left() -> None:
    assert len(minimise(range(20), lambda kept: 3 in kept or 17 in kept)) == 1
    assert len(minimise(range(20), lambda kept: True, least=1)) == 1


@given(st.integers(1, 99))
def test_bisection_finds_the_edge(edge: int) -> None:
    assert first_that_holds(0, 100, lambda number: number >= edge) == edge


def raised(error: Exception, cause: Exception | None = None) -> Failure:
    try:
        if cause is not None:
            raise error from cause
        raise error
    except Exception as caught:
        return Failure.of(caught, "fuse")


def test_failures_are_alike_whatever_the_names_and_numbers() -> None:
    one, other = (raised(GateError(said)) for said in (MOVED, MOVED.replace("'a'", "'b c'").replace("0.2", "7e+3")))
    assert one.alike(other)


@pytest.mark.parametrize(
    "other",
    [
        raised(CannotApplyError(MOVED)),
        dataclasses.replace(raised(GateError(MOVED)), step="int8"),
        raised(
            GateError("it changes what the model takes and gives: output a FLOAT became nothing; nothing was written")
        ),
        raised(GateError(MOVED), ZeroDivisionError("never raised")),
    ],
)
def test_another_error_pass_message_or_place_is_another_failure(other: Failure) -> None:
    assert not raised(GateError(MOVED)).alike(other)


def test_an_error_that_is_its_own_cause_has_a_place() -> None:
    error = GateError(MOVED)
    assert raised(error, error).place == "test_cases.py:raised"


def test_a_child_that_dies_is_told_by_its_signal_and_its_last_words() -> None:
    def work(tell: object) -> None:
        tell("here")  # type: ignore[operator]
        os.kill(os.getpid(), signal.SIGABRT)

    assert child.run(work, 10) == child.Ending(None, "SIGABRT", 134, "here")


def test_a_child_that_is_stopped_takes_along_what_it_started() -> None:
    def work(tell: object) -> None:
        tell(str(subprocess.Popen(["sleep", "60"]).pid))  # type: ignore[operator]
        time.sleep(60)

    ending = child.run(work, 0.5)
    assert ending.died == child.HANGS
    for _ in range(50):
        if not _runs(int(ending.last)):
            return
        time.sleep(0.1)
    pytest.fail("it goes on")


def _runs(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_cut_takes_shapes_along_and_makes_the_rest_inputs() -> None:
    anatomy = Anatomy(encoder())
    place = next(i for i, node in enumerate(anatomy.nodes) if node.op_type == "Reshape")
    model = anatomy.cut([place])
    assert model is not None
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("Reshape") == 1 and {"Concat", "Shape"} <= set(kinds)
    assert "MatMul" not in kinds, "a float tensor can be drawn"


def test_a_subgraph_keeps_what_it_reads_from_outside() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 23]>
        m (float[batch, 3] x, bool[1] c) => (float[batch, 3] y) {
            a = Relu(x)  b = Gelu(a)  k = Squeeze(c)
            y = If (k) <
                then_branch = t () => (float[batch, 3] p) { p = Add(a, b) },
                else_branch = e () => (float[batch, 3] q) { q = Identity(b) }
            >
        }"""
    )
    found = Anatomy(model).cut([3])
    assert found is not None
    assert {str(value.name) for value in found.graph.inputs} == {"c", "a", "b"}
    ir.from_proto(ir.to_proto(found))


def test_sizes_that_are_fixed_are_no_other_size_of_the_model() -> None:
    model = encoder()
    fixed = shrinking.fixed(model)
    assert fixed is not None
    (batch, length) = fixed.graph.inputs[0].shape or ()
    assert not {batch, length} & set(shrinking.sizes(model))
    folded = Anatomy(fixed).folded()
    assert folded is not None and "Shape" not in {node.op_type for node in folded.graph}
    assert text(model) == text(encoder())


def test_constant_nodes_become_weights() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 23]>
        m (float[batch, 3] x) => (float[batch, 3] y) { c = Constant <value_float = 2.0> ()  y = Mul(x, c) }"""
    )
    folded = Anatomy(model).folded()
    assert folded is not None and [node.op_type for node in folded.graph] == ["Mul"]
    (weight,) = folded.graph.initializers.values()
    assert weight.const_value is not None and weight.const_value.numpy() == 2
