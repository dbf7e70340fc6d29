"""A fault is found in a model, whatever shows it, and nothing is written where there is none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import onnx_ir as ir
import pytest

import ffc
from ffc.ci.reduce import reduce
from ffc.graph.text import text
from tests.ci.reduce import planted
from tests.graphs import encoder


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    return planted.plugin(tmp_path)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_one_broken_layer_of_an_encoder_is_found_and_fails_elsewhere_as_it_did(plugin: str, tmp_path: Path) -> None:
    model = planted.wrong_about()
    found = reduce(model, "clean,drop-bias{shout=true},int8", plugins=[plugin], out=tmp_path / "out")
    assert operators(found.model) == ["MatMul", "Add", "Gelu"]
    assert (found.nodes, found.nodes_before, found.finished) == (3, len(model.graph), True)
    assert (found.failure.kind, found.failure.exit_code, found.failure.step) == ("GateError", 1, planted.PASS)
    assert found.pipeline == planted.PASS, "its option is back at the default"
    bias = found.model.graph.initializers["layer1.ffn_in.bias"].const_value
    assert bias is not None and bias.numpy().tolist() == [0, 0.25]
    assert found.weights <= 16 < found.weights_before
    assert found.reproduced is True
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    Path(plugin).unlink()
    command = [sys.executable, "-B", "elsewhere/reproduce.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, f"GateError: {found.failure.message}\n")


def test_the_model_given_stays_as_it_is(plugin: str) -> None:
    model = planted.gelu()
    before = text(model)
    reduce(model, "crash", plugins=[plugin])
    assert text(model) == before


def test_passes_stay_that_the_fault_needs_unless_the_model_between_them_shows_it(plugin: str) -> None:
    found = reduce(planted.gelu(), "clean,approximate,no-tanh", plugins=[plugin])
    assert found.pipeline == "no-tanh"
    (gelu,) = found.model.graph
    assert gelu.attributes.get_string("approximate") == "tanh"


def test_an_option_stays_that_the_fault_needs(plugin: str) -> None:
    found = reduce(planted.gelu(), "clean{expect=1000},fuse", plugins=[plugin])
    assert (found.pipeline, found.failure.kind) == ("clean{expect=1000}", "CannotApplyError")


def test_a_crash_is_survived_and_reduced(plugin: str) -> None:
    found = reduce(encoder(), "clean,crash", plugins=[plugin])
    assert (found.failure.kind, found.failure.step, found.failure.exit_code) == ("SIGSEGV", "crash", 139)
    assert operators(found.model) == ["Gelu"]


def test_a_compile_without_end_is_stopped(plugin: str) -> None:
    found = reduce(planted.gelu(), "hang", plugins=[plugin], timeout=1)
    assert (found.failure.kind, found.nodes) == ("hangs", 1)


def test_an_exception_of_a_pass_is_told_from_others_by_its_kind(plugin: str) -> None:
    found = reduce(encoder(), "stumble", plugins=[plugin])
    assert operators(found.model) == ["Softmax"]
    assert "KeyError" in found.failure.message


def test_a_function_says_what_must_hold() -> None:
    found = reduce(encoder(), when=lambda model: any(node.op_type == "IsNaN" for node in model.graph))
    assert operators(found.model) == ["IsNaN"] and found.pipeline == ""


def test_a_function_that_dies_or_raises_says_no() -> None:
    def holds(model: ir.Model) -> bool:
        kinds = operators(model)
        if "Gelu" not in kinds:
            os.kill(os.getpid(), signal.SIGKILL)
        return bool(kinds[kinds.index("Softmax")])

    found = reduce(encoder(), when=holds)
    assert {"Gelu", "Softmax"} <= set(operators(found.model)) and found.nodes < 12


def test_time_that_is_over_leaves_the_smallest_so_far(plugin: str) -> None:
    found = reduce(planted.gelu(), "crash", plugins=[plugin], seconds=0.001)
    assert not found.finished
    assert (found.tried, found.nodes) == (1, found.nodes_before)


def test_a_model_that_compiles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ffc.CannotApplyError, match=r"^nothing to reduce: with 'clean' it compiles; give the pipeline"):
        reduce(planted.gelu(), "clean", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_pipeline_that_is_wrong_on_any_model_is_refused() -> None:
    with pytest.raises(ffc.UsageError, match="unknown pass 'fsue'"):
        reduce(planted.gelu(), "fsue")
    with pytest.raises(ffc.UsageError, match="put no pass after it"):
        reduce(planted.gelu(), "lower,clean")


def test_a_function_that_does_not_hold_of_the_whole_model_is_refused() -> None:
    with pytest.raises(ffc.CannotApplyError, match="must return True on the whole model, and it raises KeyError: 'x'"):
        reduce(planted.gelu(), when=lambda model: {}["x"])


def test_shapes_that_are_computed_stay_where_they_must() -> None:
    found = reduce(encoder(), when=lambda model: _reshapes_by_concat(model))
    kinds = operators(found.model)
    assert {"Reshape", "Concat"} <= set(kinds) and len(kinds) < 10


def _reshapes_by_concat(model: ir.Model) -> bool:
    """Whether a Reshape takes its shape from a Concat, in a model that is whole."""
    sources = [node.inputs[1].producer() for node in model.graph if node.op_type == "Reshape" and node.inputs[1]]
    ir.to_proto(model)
    return any(source is not None and source.op_type == "Concat" for source in sources)
