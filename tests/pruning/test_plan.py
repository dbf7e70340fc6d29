"""Plans keep what scores highest, meet only the weights they were made for, and are refused when unsound."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from ffc.errors import CannotApplyError, InputError, UsageError
from ffc.graph.blocks.structure import Attention, Blocks, FeedForward, Layer, Operand, Product
from ffc.pruning import (
    Importance,
    LayerImportance,
    LayerPlan,
    Plan,
    by_norm,
    check,
    fingerprint,
    make_plan,
    stamp,
    uniform,
)
from ffc.settings.amount import Amount

WIDTH, HEADS, UNITS = 6, 3, 5


def product(role: str, weight: np.ndarray, transposed: bool = False) -> Product:
    stored = np.ascontiguousarray(weight.T) if transposed else weight
    value = ir.Value(name=role, const_value=ir.Tensor(stored), shape=ir.Shape(stored.shape))
    node = ir.Node("", "Gemm", [ir.Value(name="x"), value])
    return Product(node, value, transposed, None, node.outputs[0], role)


def blocks(layers: int = 2, seed: int = 0, transposed: bool = False) -> Blocks:
    """Return blocks of random weights, without a graph around them."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(layers):
        square = {
            role: product(role, random.normal(size=(WIDTH, WIDTH)).astype(np.float32), transposed)
            for role in ("q", "k", "v", "attn_out")
        }
        wide = product("ffn_in", random.normal(size=(WIDTH, UNITS)).astype(np.float32), transposed)
        narrow = product("ffn_out", random.normal(size=(UNITS, WIDTH)).astype(np.float32), transposed)
        q, k, v, out = square.values()
        sides = (Operand(q.out, HEADS, None, q), Operand(k.out, HEADS, None, k), Operand(v.out, HEADS, None, v))
        attention = Attention(
            node=q.node, operands=sides, heads=HEADS, scale=1.0, masks=(), context=out.x, roles=square
        )
        made.append(Layer(index, attention, FeedForward(wide, narrow, "Gelu")))
    return Blocks(tuple(made), (), (), (), (), ())


def importance(*layers: tuple[list[float], list[float]]) -> Importance:
    return Importance(
        tuple(LayerImportance(np.array(h, np.float32), np.array(f, np.float32)) for h, f in layers), "taylor"
    )


TWO = importance(([1, 3, 2], [5, 4, 3, 2, 1]), ([2, 2, 2], [0, 1, 0, 1, 1]))


def test_uniform_keeps_the_highest_and_of_equals_the_first() -> None:
    plan = uniform(TWO, 2, 3)
    assert [layer.heads for layer in plan.layers] == [(1, 2), (0, 1)]
    assert [layer.units for layer in plan.layers] == [(0, 1, 2), (1, 3, 4)]


@pytest.mark.parametrize(("share", "kept"), [(1.0, 5), (0.5, 3), (0.49, 2), (0.1, 1), (0.01, 1), (1, 1), (5, 5)])
def test_a_float_is_a_share_and_an_int_a_number(share: float, kept: int) -> None:
    units = uniform(TWO, None, share).layers[0].units
    assert units is not None and len(units) == kept


def test_none_keeps_all() -> None:
    assert uniform(TWO, None, None).layers[0] == LayerPlan(of_heads=3, of_units=5)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (0, "layer 0: heads=0 cannot be kept, the layer has 3; give 1 to 3"),
        (4, "layer 0: heads=4 cannot be kept"),
        (-1, "layer 0: heads=-1 cannot be kept"),
        (0.0, "layer 0: heads=0.0 is not a share in (0, 1]"),
        (1.5, "layer 0: heads=1.5 is not a share"),
        (float("nan"), "layer 0: heads=nan is not a share"),
    ],
)
def test_amounts_that_a_layer_cannot_keep_are_refused(heads: float, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        uniform(TWO, heads, None)
    assert message in str(caught.value)


def test_a_layer_without_the_part_asked_for_is_refused() -> None:
    bare = importance(([1, 2], [1, 2]), ([1, 2], []))
    assert uniform(bare, 1, None).layers[1].heads == (1,)
    with pytest.raises(CannotApplyError, match=r"layer 1: ffn=0\.5 was asked for and this layer has none"):
        uniform(bare, None, 0.5)


def test_norm_scores_are_the_products_of_the_norms_in_and_out() -> None:
    made = blocks(1)
    attention, ffn = made.layers[0].cuttable, made.layers[0].ffn
    assert attention is not None and ffn is not None
    found = by_norm(made).layers[0]
    v, out = attention.roles["v"].matrix(), attention.roles["attn_out"].matrix()
    expected = [np.linalg.norm(v[:, c]) * np.linalg.norm(out[c]) for c in ([0, 1], [2, 3], [4, 5])]
    np.testing.assert_allclose(found.heads, expected, rtol=1e-5)
    wide, narrow = ffn.ffn_in.matrix(), ffn.ffn_out.matrix()
    np.testing.assert_allclose(
        found.ffn, [np.linalg.norm(wide[:, j]) * np.linalg.norm(narrow[j]) for j in range(UNITS)], rtol=1e-5
    )


def test_a_unit_that_leads_nowhere_scores_least() -> None:
    made = blocks(1)
    assert made.layers[0].ffn is not None
    tensor = made.layers[0].ffn.ffn_out.weight.const_value
    assert tensor is not None
    tensor.numpy()[3] = 0
    assert by_norm(made).layers[0].ffn.argmin() == 3


def test_no_layers_cannot_be_scored() -> None:
    with pytest.raises(CannotApplyError, match="no attention or feed-forward block"):
        by_norm(blocks(0))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    plan = stamp(uniform(TWO, 2, 0.5), blocks())
    scaled = plan.layers[0].model_copy(update={"head_scales": (0.5, 1.25), "unit_scales": (1.0, 2.0, 0.1)})
    plan = Plan(layers=(scaled, plan.layers[1]))
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["format"] == "ffc.plan/1"
    assert written["layers"][1]["heads"] == [0, 1]


def test_summary_says_what_is_kept_of_how_many() -> None:
    assert uniform(TWO, 2, None).summary().splitlines()[1] == "layer 1: heads 2 of 3, units 5 of 5"
    assert Plan(layers=[LayerPlan(heads=[1])]).summary() == "layer 0: heads 1, units all"


def test_a_fingerprint_is_the_sha256_of_the_weight_however_it_is_stored() -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert fingerprint(weight) == hashlib.sha256(weight.astype("<f4").tobytes()).hexdigest()
    assert fingerprint(weight.T.copy().T) == fingerprint(weight)
    assert fingerprint(weight.astype(np.float16)) == fingerprint(weight)
    assert fingerprint(weight.T) != fingerprint(weight)
    plan = stamp(uniform(TWO, 2, 2), blocks())
    check(plan, blocks(transposed=True))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"heads": []}, "layers.0: keeps no heads, which empties the layer"),
        ({"units": []}, "layers.0: keeps no units"),
        ({"heads": [1, 0]}, "layers.0: lists heads unsorted or twice"),
        ({"heads": [1, 1]}, "layers.0: lists heads unsorted or twice"),
        ({"heads": [0, 3], "of_heads": 3}, "layers.0: keeps head 3 of 3, which is out of range"),
        ({"heads": [-1, 0]}, "layers.0.heads.0: "),
        ({"heads": [True]}, "layers.0.heads.0: "),
        ({"heads": [0.0]}, "layers.0.heads.0: "),
        ({"heads": "all"}, "layers.0.heads: "),
        ({"head_scales": [1.0]}, "layers.0: has scales for heads but does not list the heads"),
        ({"units": [0, 2], "unit_scales": [1.0]}, "layers.0: has 1 scales for 2 units"),
        ({"units": [0], "unit_scales": [float("nan")]}, "layers.0.unit_scales.0: "),
        ({"fingerprints": {"q": "abc"}}, "layers.0.fingerprints.q: "),
        ({"fingerprints": {"door": "0" * 64}}, "layers.0: has a fingerprint of 'door', which is no role"),
        ({"kept": [1]}, "layers.0.kept: "),
    ],
)
def test_unsound_plans_are_refused(tmp_path: Path, layer: dict[str, Any], message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"format": "ffc.plan/1", "layers": [layer]}))
    with pytest.raises(InputError) as caught:
        Plan.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValidationError):
        Plan.model_validate({"layers": [layer]})


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": "ffc.plan/2", "layers": [{}]}', '{"format": "ffc.plan/1", "layers": []}']
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is not a plan that `ffc plan` makes: "):
        Plan.load(path)


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.json: No such file"):
        Plan.load(tmp_path / "none.json")


def test_a_plan_meets_the_weights_it_was_made_for() -> None:
    check(stamp(uniform(TWO, 2, 2), blocks()), blocks())


@pytest.mark.parametrize("role", ["q", "k", "v", "attn_out", "ffn_in", "ffn_out"])
def test_a_plan_for_other_weights_is_refused_by_layer_and_role(role: str) -> None:
    plan, other = stamp(uniform(TWO, 2, 2), blocks()), blocks()
    changed = next(item for item in other.layers[1].products() if item.role == role)
    assert changed.weight.const_value is not None
    changed.weight.const_value.numpy()[0, 0] += 1e-3
    with pytest.raises(CannotApplyError, match=f"layer 1, {role}: the weight is not the one"):
        check(plan, other)


def test_a_plan_of_another_shape_is_refused() -> None:
    with pytest.raises(CannotApplyError, match="the plan has 2 layers and the model has 3"):
        check(uniform(TWO, 2, 2), blocks(3))
    with pytest.raises(CannotApplyError, match="layer 0, q/k/v/attn_out: the plan is for 2 heads and the model has 3"):
        check(uniform(importance(([1, 2], [1] * 5)), 1, None), blocks(1))
    with pytest.raises(CannotApplyError, match="layer 0, ffn_in/ffn_out: the plan keeps unit 5 and the model has 5"):
        check(Plan(layers=[LayerPlan(units=[0, 5])]), blocks(1))


def test_a_plan_that_cuts_without_a_fingerprint_is_refused() -> None:
    with pytest.raises(CannotApplyError, match="layer 0, ffn_in: the plan cuts it without a fingerprint"):
        check(Plan(layers=[LayerPlan(units=[0])]), blocks(1))
    check(Plan(layers=[LayerPlan()]), blocks(1))


def test_a_plan_needs_one_source_of_scores(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    with pytest.raises(UsageError, match=r"`ffc plan MODEL --by norm`.*`ffc score`"):
        make_plan(model, Amount(heads=0.5, ffn=None))
    with pytest.raises(UsageError, match="two sources of scores"):
        make_plan(model, Amount(heads=0.5, ffn=None), by="norm", importance=tmp_path / "i")
    with pytest.raises(UsageError, match="cannot score by 'nrom'; did you mean 'norm'"):
        make_plan(model, Amount(heads=0.5, ffn=None), by="nrom")
    with pytest.raises(UsageError, match="would keep everything"):
        make_plan(model, Amount(heads=None, ffn=None), by="norm")
