"""Half precision is rounded where onnxruntime's CPU provider does not, and is taken out again."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ffc.compiler.proof.overflow import find
from ffc.compiler.proof.probes import Probe
from ffc.graph.dialect.half import rounded, roundings
from ffc.graph.dialect.widen import holds_half, in_float32
from ffc.graph.execute import Runner
from tests.graphs import Draft, encoder, feeds, masks, of_program, run_passes

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT


def two_products(first: float, second: float) -> ir.Model:
    """Return x [1, 4] times `first` everywhere, times `second` everywhere, computed in half."""
    draft = Draft()
    op, x = draft.op, draft.op.Cast(draft.input("x", 1, 4), to=HALF.value)
    for name, factor in (("w", first), ("v", second)):
        weight, bias = np.full((4, 4), factor, np.float16), np.zeros(4, np.float16)
        x = op.ffc.Linear(x, draft.weight(name, weight), draft.weight(f"{name}.b", bias))
    return draft.model({"y": (op.Cast(x, to=SINGLE.value), [1, 4])})


def test_a_number_that_half_cannot_hold_shows() -> None:
    model, feed = two_products(300, 0.001), {"x": np.full((1, 4), 100, np.float32)}
    assert np.isinf(Runner(rounded(model)).run(feed)["y"]).all()
    assert np.isfinite(Runner(in_float32(model)).run(feed)["y"]).all()


def test_results_are_rounded_one_by_one() -> None:
    model, feed = two_products(1 / 3, 1 / 7), {"x": np.full((1, 4), 1.1, np.float32)}
    x = np.float16(1.1)
    for factor in (np.float16(1 / 3), np.float16(1 / 7)):
        x = np.float16(4 * np.float32(x) * np.float32(factor))
    found = Runner(rounded(model)).run(feed)["y"]
    assert (found == np.float32(x)).all()


def test_the_first_value_out_of_range_is_named() -> None:
    model, probe = two_products(300, 100), Probe("one", {"x": np.full((1, 4), 100, np.float32)}, None)
    call = next(node for node in model.graph if node.domain == "ffc")
    said = find(model, [probe])
    assert said is not None
    assert said.startswith(f"'{call.outputs[0].name}' reaches 1.2e+05 on probe 'one'")
    assert find(two_products(1, 1), [probe]) is None


def test_queries_are_scaled_before_the_product_so_that_scores_in_range_stay_in_range() -> None:
    random = np.random.default_rng(0)
    q = (150 + random.standard_normal((1, 3, 16))).astype(np.float16)

    def program(op: object, q: object) -> object:
        return op.Cast(op.ffc.AttentionHalf(q, q, q, heads=1, scale=0.1), to=SINGLE.value)  # type: ignore[attr-defined]

    model = of_program(program, {"q": q}, {}, {})
    assert float(np.square(q[0, 0].astype(np.float32)).sum()) > 65504
    found, expected = (Runner(change(model)).run({"q": q})["y"] for change in (rounded, lambda same: same))
    assert np.allclose(found, expected, rtol=1e-2)


@pytest.mark.parametrize("passes", [(), ("int8{embeddings=true}",)])
def test_the_float32_meaning_holds_no_half_and_differs_by_weights_alone(passes: tuple[str, ...]) -> None:
    fused = run_passes(encoder(layers=2), "opset", "clean", "fuse", *passes)
    half = run_passes(fused, "fp16")
    assert (holds_half(fused), holds_half(half), holds_half(in_float32(half))) == (False, True, False)
    inputs = feeds(masks(2, 7)["holed"])
    exact, plain = (Runner(model).run(inputs)["last_hidden_state"] for model in (fused, in_float32(half)))
    assert np.abs(exact - plain).max() < 0.01 * np.abs(exact).max()
    assert passes or not np.array_equal(exact, plain), "weights of products are rounded"


def test_every_half_result_of_a_model_is_rounded() -> None:
    half = run_passes(encoder(), "opset", "clean", "fuse", "fp16")
    places = list(roundings(rounded(half)))
    named = {part for place in places for part in place.parts}
    calls = {node.outputs[0].name for node in half.graph if node.op_type.startswith(("Linear", "AttentionMasked"))}
    assert {name.rsplit("/", 1)[0] for name in calls if name} <= named
    assert all(place.exact.name for place in places)
