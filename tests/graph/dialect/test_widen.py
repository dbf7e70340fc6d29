"""What bfloat16 gives is shown in float32, each result rounded."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ffc.graph.dialect.widen import holds_bfloat16, runnable
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


def test_any_other_model_is_shown_as_it_is() -> None:
    model = encoder()
    assert not holds_bfloat16(model) and runnable(model) is model
    assert model.graph.outputs[0].dtype == ir.DataType.FLOAT
