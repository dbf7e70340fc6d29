"""What means the same is no change: names, order, where weights are kept, and how constants are written."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import DeduplicateInitializersPass

from ffc.ci.diff.diff import diff
from ffc.graph import files
from tests import checkout
from tests.ci.disguise import disguise
from tests.ci.edits import named
from tests.graphs import encoder

Exported = Callable[..., Path]


@pytest.fixture(params=["dynamo sdpa", "TorchScript sdpa"])
def export(request: pytest.FixtureRequest, exported: Exported) -> Path:
    return exported("bert", way=request.param)


def said(before: object, after: object) -> list[str]:
    found = diff(before, after)  # type: ignore[arg-type]
    assert found.equal == (not found.changes)
    return [change.what for change in found.changes]


def test_a_model_saved_twice(export: Path, tmp_path: Path) -> None:
    files.save(files.load(export), tmp_path / "again.onnx")
    assert said(export, tmp_path / "again.onnx") == []


def test_external_data(export: Path, tmp_path: Path) -> None:
    files.save(files.load(export), tmp_path / "apart.onnx", external=True)
    assert [path.suffix for path in tmp_path.iterdir()].count(".data") == 1
    assert said(export, tmp_path / "apart.onnx") == []


@pytest.mark.parametrize("seed", range(4))
def test_other_names_order_and_constants(export: Path, seed: int) -> None:
    original = named(files.load(export))
    other, _ = disguise(original, np.random.default_rng(seed))
    assert said(original, other) == []
    assert said(other, original) == []


def test_costs_do_not_depend_on_how_constants_are_written(export: Path) -> None:
    original = named(files.load(export))
    other, _ = disguise(original, np.random.default_rng(0))
    was, now = diff(original, other).costs
    assert was == now


def test_weights_that_are_shared_and_weights_that_are_not(export: Path) -> None:
    original = files.load(export)
    other = original.clone()
    DeduplicateInitializersPass()(other)
    assert said(original, other) == []


def test_attributes_that_are_at_their_default() -> None:
    original = encoder()
    other = original.clone()
    softmax = [node for node in other.graph if node.op_type == "Softmax"]
    for node in softmax:
        assert node.attributes.pop("axis").value == -1
    assert softmax
    assert said(original, other) == []


def test_the_long_name_of_the_domain_of_standard_operators() -> None:
    def softmax(domain: str, attributes: str = "") -> ir.Model:
        model = ir.from_onnx_text(
            f'<ir_version: 10, opset_import: ["" : 20]> g (float[n,4,5] x) => (float[n,4,5] y) {{ '
            f"y = Softmax {attributes} (x) }}"
        )
        model.opset_imports[domain] = model.opset_imports.pop("")
        return model

    assert said(softmax(""), softmax("ai.onnx")) == []
    assert said(softmax(""), softmax("ai.onnx", "<axis: int = -1>")) == []
    assert said(softmax("ai.onnx"), softmax("ai.onnx", "<axis: int = 1>")) == ["Softmax axis: -1 → 1"]


def test_operands_that_commute() -> None:
    original = encoder()
    other = original.clone()
    for node in [node for node in other.graph if node.op_type in ("Add", "Mul")]:
        first, second = node.inputs
        node.replace_input_with(0, second)
        node.replace_input_with(1, first)
    assert said(original, other) == []


def test_copies_of_weights_are_weights() -> None:
    original = encoder()
    other = original.clone()
    weight = next(value for value in other.graph.initializers.values() if value.const_value.size > 64)
    copy = ir.node("Identity", [weight], name="copy")
    copy.outputs[0].name = "copied"
    weight.replace_all_uses_with(copy.outputs[0])
    copy.replace_input_with(0, weight)
    other.graph.insert_before(other.graph[0], copy)
    assert said(original, other) == []


def test_names_count_where_that_is_asked() -> None:
    original = named(encoder())
    other = original.clone()
    for node in other.graph:
        node.name = f"other_{node.name}"
    assert said(original, other) == []
    changes = diff(original, other, names=True).changes
    assert {change.kind for change in changes} == {"name"}
    assert len(changes) == sum(node.op_type != "Constant" for node in original.graph)


def test_symbols_of_dimensions_are_names() -> None:
    original = encoder()
    other = original.clone()
    for value in [*other.graph.inputs, *other.graph.outputs]:
        value.shape = ir.Shape([{"batch": "rows", "seq": "tokens"}.get(str(dim), dim) for dim in value.shape])
    assert said(original, other) == []
    assert {change.what for change in diff(original, other, names=True).changes} == {"dimension batch → rows", "dimension seq → tokens"}
    other.graph.inputs[0].shape = ir.Shape(["rows", "rows"])
    assert said(original, other) == ["input type: i64[batch,seq] → i64[rows,rows]"]


def test_every_process_finds_the_same(exported: Exported) -> None:
    paths = [str(exported("bert")), str(exported("bert", way="TorchScript sdpa"))]
    code = "import sys\nfrom ffc.cli import main\nsys.exit(main(['diff', *sys.argv[1:], '--json']))"
    found = [
        subprocess.run(
            [sys.executable, "-c", code, *paths],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(checkout.ROOT)},
            cwd=checkout.ROOT,
            capture_output=True,
            check=False,
        )
        for seed in ("1", "2")
    ]
    assert [each.returncode for each in found] == [1, 1]
    assert found[0].stdout == found[1].stdout
    assert re.search(rb'"kind": "structure"', found[0].stdout)
