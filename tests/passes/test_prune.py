"""The pass `prune` slices to what the masked model computes, for any choice of heads and units, and refuses where it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.compiler import syntax
from ffc.compiler.library import Library
from ffc.graph.blocks.finder import find
from ffc.graph.dialect.trace import OPSET, Op
from ffc.graph.execute import Runner
from ffc.graph.tidy import tidy
from ffc.pruning import Importance, LayerImportance, LayerPlan, Plan, stamp

WIDTH, HEADS, UNITS = 12, 4, 10
LIBRARY = Library.default()


@dataclass(frozen=True)
class Make:
    """What the encoder of these tests is made of.

    Attributes:
        layers: Number of layers.
        shared: Whether all layers use the same weights, and all biases of one size are one initializer.
        planes: Planes of a float mask input, 1 or one per head; 0 for no mask, None for an unknown number.
        plain: Whether the feed-forward network is written in MatMul, Add, Div, Erf and Mul.
        tap: A value that is a second output of the model: "ffn", "context" or "".
    """

    layers: int = 2
    shared: bool = False
    planes: int | None = 1
    plain: bool = False
    tap: str = ""


def encoder(make: Make) -> ir.Model:
    """Return an encoder made of calls, [B, S, 12] to [B, S, 12], its weights random."""
    random = np.random.default_rng(3)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="encoder")
    weights: dict[str, ir.Value] = {}

    def weight(layer: int, role: str, *shape: int) -> ir.Value:
        name = f"{'x'.join(map(str, shape))}" if make.shared and len(shape) == 1 else role
        name = name if make.shared else f"{layer}.{name}"
        if name not in weights:
            array = random.normal(size=shape).astype(np.float32) * 0.5
            weights[name] = ir.Value(name=name, const_value=ir.Tensor(array, name=name), shape=ir.Shape(shape))
            weights[name].type = ir.TensorType(ir.DataType.FLOAT)
            graph.register_initializer(weights[name])
        return weights[name]

    op = Op()
    x = tensor("x", ["batch", "tokens", WIDTH])
    graph.inputs.append(x)
    mask = tensor("mask", ["batch", "planes" if make.planes is None else make.planes, "tokens", "tokens"])
    if make.planes != 0:
        graph.inputs.append(mask)
    taps: dict[str, ir.Value] = {}
    for layer in range(make.layers):

        def linear(function: str, x: ir.Value, role: str, inner: int, outer: int, layer: int = layer) -> Any:
            return op.ffc.node(function, x, weight(layer, role, inner, outer), weight(layer, f"{role}.bias", outer))

        q, k, v = (linear("Linear", x, role, WIDTH, WIDTH) for role in ("q", "k", "v"))
        if make.planes == 0:
            taps["context"] = op.ffc.Attention(q, k, v, heads=HEADS, scale=0.5)
        else:
            taps["context"] = op.ffc.AttentionMasked(q, k, v, mask, heads=HEADS, scale=0.5)
        norm = (weight(layer, "gamma", WIDTH), weight(layer, "beta", WIDTH))
        x = op.ffc.AddNorm(linear("Linear", taps["context"], "attn_out", WIDTH, WIDTH), x, *norm, epsilon=1e-5)
        if make.plain:
            wide = op.Add(op.MatMul(x, weight(layer, "ffn_in", WIDTH, UNITS)), weight(layer, "ffn_in.bias", UNITS))
            gate = op.Add(op.Erf(op.Div(wide, np.float32(2**0.5))), np.float32(1))
            taps["ffn"] = op.Mul(op.Mul(wide, gate), np.float32(0.5))
        else:
            taps["ffn"] = linear("LinearGelu", x, "ffn_in", WIDTH, UNITS)
        x = op.ffc.AddNorm(linear("Linear", taps["ffn"], "ffn_out", UNITS, WIDTH), x, *norm, epsilon=1e-5)
    x.name, x.type, x.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", "tokens", WIDTH])
    graph.outputs.append(x)
    if make.tap:
        taps[make.tap].type = ir.TensorType(ir.DataType.FLOAT)
        taps[make.tap].shape = ir.Shape(["batch", "tokens", "wide"])
        graph.outputs.append(taps[make.tap])
    graph.extend(op.nodes)
    return tidy(ir.Model(graph, ir_version=10))


def tensor(name: str, shape: Sequence[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def run(model: ir.Model, planes: int | None = 1) -> np.ndarray:
    random = np.random.default_rng(5)
    feeds = {"x": random.normal(size=(2, 7, WIDTH)).astype(np.float32)}
    if planes != 0:
        feeds["mask"] = random.normal(size=(2, planes or 1, 7, 7)).astype(np.float32) * 3
    return Runner(model).run(feeds)["y"]


def masked_by_hand(model: ir.Model, plan: Plan) -> ir.Model:
    """Zero what the plan drops, written independently of the pass: row by row, into copies of the weights."""
    clone = model.clone()
    for layer, kept in zip(find(clone).layers, plan.layers, strict=True):
        assert layer.cuttable is not None and layer.ffn is not None
        size = WIDTH // HEADS
        for head in range(HEADS):
            if kept.heads is not None and head not in kept.heads:
                zero_rows(clone, layer.cuttable.roles["attn_out"].node, range(head * size, (head + 1) * size))
        for unit in range(UNITS):
            if kept.units is not None and unit not in kept.units:
                zero_rows(clone, layer.ffn.ffn_out.node, [unit])
    return clone


def zero_rows(model: ir.Model, node: ir.Node, rows: Sequence[int]) -> None:
    old = node.inputs[1]
    assert old is not None and old.const_value is not None
    array = old.const_value.numpy().copy()
    array[list(rows)] = 0
    name = f"{node.name}.{old.name}.zero"
    new = ir.Value(name=name, const_value=ir.Tensor(array, name=name), shape=old.shape, type=old.type)
    model.graph.register_initializer(new)
    node.replace_input_with(1, new)


def prune(model: ir.Model, **options: Any) -> tuple[ir.Model, ffc.Log]:
    """Run the pass alone, as the run loop does."""
    clone, log = model.clone(), ffc.Log()
    clone.meta.update(model.meta)
    LIBRARY["prune"](**options).run(clone, log)
    return tidy(clone), log


def saved(plan: Plan, model: ir.Model, folder: Path) -> Path:
    stamp(plan, find(model)).save(folder / "p.json")
    return folder / "p.json"


def parameters(model: ir.Model) -> int:
    return sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value is not None)


UNEVEN = Plan(layers=[LayerPlan(heads=[1, 3], units=[0, 2, 3, 9]), LayerPlan(heads=[0], units=[1, 2, 3, 4, 5, 6, 7])])
ENDS = Plan(layers=[LayerPlan(heads=[0, 1, 3]), LayerPlan(units=[9])])


@pytest.mark.parametrize("plan", [UNEVEN, ENDS], ids=["uneven", "ends"])
@pytest.mark.parametrize(
    "make",
    [
        Make(),
        Make(shared=True),
        Make(planes=HEADS),
        Make(planes=0),
        Make(plain=True),
        Make(plain=True, shared=True, planes=HEADS),
    ],
    ids=str,
)
def test_the_result_equals_the_masked_model(make: Make, plan: Plan, tmp_path: Path) -> None:
    model = encoder(make)
    path = saved(plan, model, tmp_path)
    sliced, _ = prune(model, plan=path)
    expected = run(masked_by_hand(model, plan), make.planes)
    np.testing.assert_allclose(run(sliced, make.planes), expected, atol=1e-5)
    reference = LIBRARY["prune"](plan=path).contract.masked(model)
    np.testing.assert_allclose(run(reference, make.planes), expected, atol=1e-6)
    assert np.abs(run(model, make.planes) - expected).max() > 1e-2  # the plan does matter


def test_weights_biases_and_the_number_of_heads_are_sliced(tmp_path: Path) -> None:
    model = encoder(Make())
    sliced, log = prune(model, plan=saved(UNEVEN, model, tmp_path))
    first, second = find(sliced).layers
    assert first.cuttable is not None and first.ffn is not None
    assert second.cuttable is not None and second.ffn is not None
    assert (first.cuttable.heads, second.cuttable.heads) == (2, 1)
    assert first.cuttable.roles["q"].sizes == (12, 6) and second.cuttable.roles["v"].sizes == (12, 3)
    assert (first.ffn.units, second.ffn.units) == (4, 7)
    per_head, per_unit = 3 * (3 * 12 + 3) + 3 * 12, 12 + 1 + 12
    assert parameters(model) - parameters(sliced) == 5 * per_head + 9 * per_unit
    assert log.done == {"heads": 5, "units": 9}
    assert log.notes == [
        "layer 0: heads 2 of 4",
        "layer 0: units 4 of 10",
        "layer 1: heads 1 of 4",
        "layer 1: units 7 of 10",
    ]


def test_the_input_is_left_as_it_was(tmp_path: Path) -> None:
    model = encoder(Make(shared=True))
    before = {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]
    prune(model, plan=saved(UNEVEN, model, tmp_path))
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        np.testing.assert_array_equal(value.const_value.numpy(), before[name])


def test_layers_that_share_weights_still_share_them_when_cut_alike() -> None:
    model = encoder(Make(shared=True))
    sliced, _ = prune(model, by="norm", heads=2, ffn=5)
    first, second = find(sliced).layers
    assert [p.weight for p in first.products()] == [p.weight for p in second.products()]


def test_scales_are_folded_into_the_rows_that_go_out(tmp_path: Path) -> None:
    model = encoder(Make())
    plan = Plan(
        layers=[
            LayerPlan(heads=[0, 2], head_scales=[1.5, 0.5], units=list(range(10)), unit_scales=[0.5] * 10),
            LayerPlan(),
        ]
    )
    path = saved(plan, model, tmp_path)
    sliced, log = prune(model, plan=path)
    before, after = find(model).layers[0], find(sliced).layers[0]
    assert before.cuttable and after.cuttable and before.ffn and after.ffn
    rows = before.cuttable.roles["attn_out"].matrix()
    np.testing.assert_allclose(after.cuttable.roles["attn_out"].matrix()[:3], rows[:3] * 1.5, rtol=1e-6)
    np.testing.assert_allclose(after.cuttable.roles["attn_out"].matrix()[3:], rows[6:9] * 0.5, rtol=1e-6)
    np.testing.assert_allclose(after.ffn.ffn_out.matrix(), before.ffn.ffn_out.matrix() * 0.5, rtol=1e-6)
    np.testing.assert_allclose(run(sliced), run(LIBRARY["prune"](plan=path).contract.masked(model)), atol=1e-5)
    assert log.done == {"heads": 2, "head scales": 2, "unit scales": 10}


def test_a_plan_that_keeps_everything_changes_nothing(tmp_path: Path) -> None:
    model = encoder(Make())
    path = saved(Plan(layers=[LayerPlan(heads=range(4)), LayerPlan()]), model, tmp_path)
    sliced, log = prune(model, plan=path)
    assert log.count == 0 and log.nearest() is not None
    assert parameters(sliced) == parameters(model)


def test_a_mask_with_an_unknown_number_of_planes_is_refused_for_that_layer() -> None:
    with pytest.raises(
        ffc.CannotApplyError, match=r"layer 0: heads cannot be cut: the shape of the mask 'mask' is \[batch, planes"
    ):
        prune(encoder(Make(planes=None)), by="norm", heads=2)
    _, log = prune(encoder(Make(planes=None)), by="norm", ffn=2)
    assert log.done == {"units": 16}


@pytest.mark.parametrize("plain", [False, True])
def test_heads_whose_output_is_used_elsewhere_too_are_refused_for_that_layer(plain: bool) -> None:
    model = encoder(Make(tap="context", plain=plain))
    with pytest.raises(ffc.CannotApplyError, match="layer 1: heads"):
        prune(model, by="norm", heads=2)


@pytest.mark.parametrize("plain", [False, True])
def test_units_whose_output_is_used_elsewhere_too_are_refused_for_that_layer(plain: bool, tmp_path: Path) -> None:
    model = encoder(Make(tap="ffn", plain=plain))
    with pytest.raises(ffc.CannotApplyError, match="layer 1: ffn=3 was asked for and this layer has none"):
        prune(model, by="norm", ffn=3)
    path = saved(UNEVEN, encoder(Make(plain=plain)), tmp_path)
    with pytest.raises(
        ffc.CannotApplyError, match="layer 1, ffn_in/ffn_out: the plan keeps unit 7 and the model has 0"
    ):
        prune(model, plan=path)


def test_a_model_without_blocks_is_refused() -> None:
    x = tensor("x", [2])
    op = Op()
    y = op.Relu(x)
    y.name, y.type, y.shape = "y", x.type, x.shape
    model = ir.Model(ir.Graph([x], [y], nodes=op.nodes, opset_imports={"": OPSET}, name="g"), ir_version=10)
    with pytest.raises(ffc.CannotApplyError, match="no encoder layer was found"):
        prune(model, by="norm", heads=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": Path("p"), "by": "norm"}, "plan and by each say what to keep"),
        ({"plan": Path("p"), "importance": Path("i"), "heads": 1}, "plan and importance each say what to keep"),
        ({"plan": Path("p"), "heads": 2}, "a plan says already how much to keep"),
        ({"by": "norm"}, "by does not say how much to keep"),
        ({"importance": Path("i")}, "importance does not say how much to keep"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ffc.UsageError, match=message):
        LIBRARY["prune"](**options)


def test_options_round_trip_as_text() -> None:
    text = "prune{importance=i.safetensors heads=2 ffn=0.25}"
    (made,) = syntax.parse(text, LIBRARY)
    assert (made.heads, made.ffn, made.importance) == (2, 0.25, Path("i.safetensors"))  # type: ignore[attr-defined]
    assert syntax.unparse([made]) == text


def ranked(*best: int) -> Importance:
    """Return an importance that ranks one head of each layer first."""
    heads = np.zeros((len(best), HEADS), np.float32)
    heads[range(len(best)), best] = 1
    return Importance(tuple(LayerImportance(row, np.ones(UNITS, np.float32)) for row in heads), "taylor")


def test_an_importance_file_says_what_to_keep(tmp_path: Path) -> None:
    model = encoder(Make())
    ranked(2, 3).save(tmp_path / "i.safetensors")
    sliced, _ = prune(model, importance=tmp_path / "i.safetensors", heads=1)
    plan = Plan(layers=[LayerPlan(heads=[2]), LayerPlan(heads=[3])])
    np.testing.assert_allclose(run(sliced), run(masked_by_hand(model, plan)), atol=1e-5)
    ranked(2).save(tmp_path / "short.safetensors")
    with pytest.raises(
        ffc.CannotApplyError, match=r"short.safetensors was made for another model: the importance has 1 layers"
    ):
        prune(model, importance=tmp_path / "short.safetensors", heads=1)


def test_a_plan_for_another_model_is_refused(tmp_path: Path) -> None:
    model = encoder(Make())
    path = saved(UNEVEN, model, tmp_path)
    zero_rows(model, find(model).layers[1].ffn.ffn_out.node, [0])  # type: ignore[union-attr]
    with pytest.raises(ffc.CannotApplyError, match=r"p\.json: layer 1, ffn_out: the weight is not the one"):
        prune(model, plan=path)


@pytest.mark.parametrize("name", ["plan.json", "m.plan.json", "sub/named.json"])
def test_without_a_source_the_plan_of_the_model_is_used(name: str, tmp_path: Path) -> None:
    model = encoder(Make())
    model.meta["ffc.path"] = tmp_path / "m.onnx"
    (tmp_path / "sub").mkdir()
    saved(UNEVEN, model, tmp_path).rename(tmp_path / name)
    if name.startswith("sub/"):
        model.metadata_props["ffc.plan"] = name
    sliced, log = prune(model)
    assert log.done == {"heads": 5, "units": 9}
    assert "ffc.plan" not in sliced.metadata_props


def test_without_a_source_the_importance_of_the_model_is_used_where_amounts_are_given(tmp_path: Path) -> None:
    model = encoder(Make())
    model.meta["ffc.path"] = tmp_path / "m.onnx"
    ranked(0, 1).save(tmp_path / "importance.safetensors")
    _, log = prune(model, heads=1)
    assert log.done == {"heads": 6}
    with pytest.raises(ffc.CannotApplyError, match=r"only importance\.safetensors; say how much to keep"):
        prune(model)


def test_without_any_source_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    model = encoder(Make())
    with pytest.raises(ffc.CannotApplyError, match=r"comes from no file.*ffc plan MODEL --by norm"):
        prune(model)
    model.meta["ffc.path"] = tmp_path / "m.onnx"
    for options in ({}, {"heads": 2}):
        with pytest.raises(ffc.CannotApplyError, match=r"ffc plan MODEL --by norm --heads 0\.5") as caught:
            prune(model, **options)
    assert caught.value.exit_code == 4


def test_metadata_may_not_name_files_outside_the_folder_of_the_model(tmp_path: Path) -> None:
    model = encoder(Make())
    (tmp_path / "sub").mkdir()
    saved(UNEVEN, model, tmp_path)
    model.meta["ffc.path"] = tmp_path / "sub" / "m.onnx"
    model.metadata_props["ffc.plan"] = "../p.json"
    with pytest.raises(ffc.CannotApplyError, match="outside its folder"):
        prune(model)
