"""What bfloat16 gives is shown in float32, each result rounded."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

import ffc
from ffc.graph.dialect.widen import holds_bfloat16, in_float32, runnable
from tests.graphs import Draft, Stock, count, encoder
from tests.halves import BRAIN


def rounded(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)


def test_each_result_is_rounded_as_bfloat16_rounds_it() -> None:
    draft = Draft()
    x = draft.input("x", 3, 8, dtype=BRAIN)
    array = draft.random.standard_normal((8, 8)).astype(ml_dtypes.bfloat16)
    y = draft.op.Mul(draft.op.Tanh(draft.op.MatMul(x, draft.weight("w", array))), x)
    shown = runnable(draft.model({"y": (draft.op.Transpose(y, perm=[1, 0]), [8, 3])}, dtype=BRAIN))
    given = rounded(np.random.default_rng(0).standard_normal((3, 8)))
    expected = rounded(rounded(np.tanh(rounded(given @ array.astype(np.float32)))) * given).T
    found = Stock(shown)({"x": given})["y"]
    assert np.abs(found - expected).max() <= 2**-8 * np.abs(expected).max()  # sums may end in another last place
    assert np.array_equal(found, rounded(found)) and (found == expected).mean() > 0.9
    assert count(shown, "Cast") == 2 * 3  # a Transpose rounds nothing


def test_an_input_in_half_that_is_an_output_too_is_handed_on() -> None:
    """Be it read or not, and a pass after it is proved."""
    draft = Draft()
    x, s = draft.input("x", "n", 3), draft.input("s", dtype=ir.DataType.FLOAT16)
    y = draft.op.Mul(x, draft.op.Cast(s, to=ir.DataType.FLOAT.value))
    model = draft.model({"y": (y, ["n", 3])}, opset=17)
    model.graph.outputs.append(s)
    given = {"x": np.ones((2, 3), np.float32), "s": np.array(1.5, np.float16)}
    found = Stock(in_float32(model))(given)
    assert found["s"].dtype == np.float16 and found["s"] == 1.5
    after = Stock(ffc.compile(model, "fuse").model)(given)
    assert after["s"].dtype == np.float16 and (after["y"] == 1.5).all()


def test_any_other_model_is_shown_as_it_is() -> None:
    model = encoder()
    assert not holds_bfloat16(model) and runnable(model) is model
    assert model.graph.outputs[0].dtype == ir.DataType.FLOAT
