"""Scores by forward passes: what they are, that they depend on rows alone, and which models they are refused for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import pytest

from ffc.compiler.proof.probes import Probe
from ffc.compiler.proof.rows import from_data
from ffc.errors import CannotApplyError, InputError
from ffc.graph.blocks.finder import find
from ffc.graph.dialect.edit import Editor
from ffc.graph.execute import Runner
from ffc.pruning import Importance, LayerPlan, Plan, uniform
from ffc.pruning.forward import by_forward
from tests.graphs import HEADS, UNITS, VOCABULARY, Draft, encoder, feeds, masks, run_passes

LENGTH = 9


def rows(kind: str = "right", number: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    return feeds(masks(number, LENGTH)[kind], seed=seed)


def batched(model: ir.Model, given: Mapping[str, np.ndarray], sizes: Sequence[int]) -> list[Probe]:
    """Cut rows into batches of these sizes, as the command does into its own."""
    ends = np.cumsum(sizes)
    parts = [{n: a[end - size : end] for n, a in given.items()} for size, end in zip(sizes, ends, strict=True)]
    return [probe for part in parts for probe in from_data(model, part)]


def score(model: ir.Model, given: Mapping[str, np.ndarray], sizes: Sequence[int] = (5,)) -> Importance:
    return by_forward(model, batched(model, given, sizes))


def all_scores(importance: Importance) -> np.ndarray:
    return np.concatenate([part for layer in importance.layers for part in (layer.heads, layer.ffn)])


def without(model: ir.Model, layer: int, head: int) -> ir.Model:
    """Return the model with one head's rows of the output projection set to zero."""
    copy = model.clone()
    attention = find(copy).layers[layer].cuttable
    assert attention is not None
    product = attention.roles["attn_out"]
    weight = product.matrix().copy()
    weight.reshape(HEADS, -1, weight.shape[1])[head] = 0
    stored = weight.T if product.transposed else weight
    new = Editor(copy).constant(np.ascontiguousarray(stored), "without")
    product.node.replace_input_with(next(i for i, x in enumerate(product.node.inputs) if x is product.weight), new)
    return copy


def distance(model: ir.Model, whole: ir.Model) -> float:
    """Return how far the outputs of `model` are from those of the whole one, as `by_forward` defines it."""
    given = rows()
    real = given["attention_mask"].astype(bool)
    one, other = Runner(model).run(given), Runner(whole).run(given)
    pairs = [(one["last_hidden_state"][real], other["last_hidden_state"][real]), (one["pooler"], other["pooler"])]
    return float(np.mean([np.square(a - b).sum() / np.square(b).sum() for a, b in pairs]))


@pytest.fixture(scope="module")
def model() -> ir.Model:
    return encoder(layers=2, opset=23)


@pytest.fixture(scope="module")
def scores(model: ir.Model) -> Importance:
    return score(model, rows())


def test_there_is_a_score_for_every_head_and_unit(model: ir.Model, scores: Importance) -> None:
    assert scores.mismatch(find(model)) is None
    assert [(len(layer.heads), len(layer.ffn)) for layer in scores.layers] == [(HEADS, UNITS)] * 2
    assert (all_scores(scores) > 0).all()
    assert (scores.method, scores.samples) == ("forward", 5)


def test_a_heads_score_is_how_far_outputs_move_without_it(model: ir.Model, scores: Importance) -> None:
    for layer in range(2):
        wanted = [distance(without(model, layer, head), model) for head in range(HEADS)]
        np.testing.assert_allclose(scores.layers[layer].heads, wanted, rtol=1e-4)


def added_by_units(model: ir.Model, given: Mapping[str, np.ndarray], counted: np.ndarray) -> np.ndarray:
    """Return the mean square of what each unit of the last layer adds to the residual stream, at the tokens counted."""
    shown = model.clone()
    ffn = find(shown).layers[-1].ffn
    assert ffn is not None
    read = ffn.ffn_out.x
    read.name, read.type = "read", ir.TensorType(ir.DataType.FLOAT)
    shown.graph.outputs.append(read)
    activations = Runner(shown).run(given)["read"][counted].astype(np.float64)  # [tokens, units]
    added = activations[:, :, None] * ffn.ffn_out.matrix()[None]  # [tokens, units, width]
    return np.asarray(np.square(added).sum(axis=2).mean(axis=0))


def test_a_units_score_is_the_mean_square_of_what_it_adds(model: ir.Model, scores: Importance) -> None:
    wanted = added_by_units(model, rows(), rows()["attention_mask"].astype(bool))
    np.testing.assert_allclose(scores.layers[1].ffn, wanted, rtol=1e-5)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (2, 3), (4, 1)])
def test_scores_do_not_depend_on_batch_size(model: ir.Model, scores: Importance, sizes: Sequence[int]) -> None:
    np.testing.assert_allclose(all_scores(score(model, rows(), sizes)), all_scores(scores), rtol=1e-4)


def test_scores_do_not_depend_on_the_order_of_rows(model: ir.Model, scores: Importance) -> None:
    turned = {name: array[::-1] for name, array in rows().items()}
    np.testing.assert_allclose(all_scores(score(model, turned)), all_scores(scores), rtol=1e-4)


def test_scores_do_not_depend_on_padding(model: ir.Model, scores: Importance) -> None:
    longer = {name: np.pad(array, ((0, 0), (0, 7))) for name, array in rows().items()}
    longer["input_ids"][:, LENGTH:] = VOCABULARY - 1
    np.testing.assert_allclose(all_scores(score(model, longer)), all_scores(scores), rtol=1e-4)


def test_a_row_without_real_tokens_changes_nothing(model: ir.Model, scores: Importance) -> None:
    given = {name: np.concatenate([array, array[:1]]) for name, array in rows().items()}
    given["attention_mask"][5] = 0
    np.testing.assert_allclose(all_scores(score(model, given, (6,))), all_scores(scores), rtol=1e-4)


def test_a_fused_model_has_the_scores_of_the_exported_one(model: ir.Model, scores: Importance) -> None:
    fused = run_passes(model, "clean", "fuse")
    np.testing.assert_allclose(all_scores(score(fused, rows())), all_scores(scores), rtol=1e-3)


def test_a_model_without_dead_tokens_counts_the_tokens_that_are_left() -> None:
    model = encoder(layers=2, opset=23)
    model.graph.outputs.pop(0)  # the pooler alone, which reads the first token
    small = run_passes(model, "clean", "fuse", "deadtokens")
    given = rows()
    found, whole = score(small, given), score(model, given)
    np.testing.assert_allclose(found.layers[0].ffn, whole.layers[0].ffn, rtol=1e-3)
    for one, other in zip(found.layers, whole.layers, strict=True):
        np.testing.assert_allclose(one.heads, other.heads, rtol=1e-3)
    first = np.arange(LENGTH) == np.zeros((5, 1))
    np.testing.assert_allclose(found.layers[1].ffn, added_by_units(model, given, first), rtol=1e-3)


def test_what_adds_nothing_scores_zero(model: ir.Model) -> None:
    found = score(without(model, 1, 2), rows())
    assert found.layers[1].heads[2] == 0
    assert (np.delete(found.layers[1].heads, 2) > 0).all()


def test_uneven_layers_are_scored(model: ir.Model, scores: Importance) -> None:
    pruned = run_passes(model, "clean", "fuse", "prune{by=norm heads=2 ffn=7}")
    found = score(pruned, rows())
    assert [(len(layer.heads), len(layer.ffn)) for layer in found.layers] == [(2, 7)] * 2
    assert found.model != scores.model


def test_the_hash_is_that_of_the_weights(model: ir.Model, scores: Importance) -> None:
    assert score(run_passes(model, "clean"), rows(seed=4)).model == scores.model
    assert score(encoder(layers=2, seed=1, opset=23), rows()).model != scores.model


def test_the_result_makes_a_plan(model: ir.Model, scores: Importance) -> None:
    plan = uniform(scores, 1, 0.5, find(model))
    best = [int(layer.heads.argmax()) for layer in scores.layers]
    assert isinstance(plan, Plan) and [layer.heads for layer in plan.layers] == [(head,) for head in best]
    assert all(isinstance(layer, LayerPlan) and len(layer.units or ()) == UNITS // 2 for layer in plan.layers)


def test_the_model_is_left_as_it_was(model: ir.Model) -> None:
    inputs, nodes = [value.name for value in model.graph.inputs], len(list(model.graph))
    score(model, rows())
    assert ([value.name for value in model.graph.inputs], len(list(model.graph))) == (inputs, nodes)


def test_progress_is_told(model: ir.Model) -> None:
    told: list[tuple[int, int]] = []
    by_forward(model, batched(model, rows(), (2, 3)), progress=lambda line, *count: told.append(count))
    assert told == [(1, 2), (2, 2)]


def test_int8_products_are_refused(model: ir.Model) -> None:
    with pytest.raises(CannotApplyError, match="the model holds int8 products; score the model in float32"):
        score(run_passes(model, "clean", "fuse", "int8"), rows())


def test_a_model_without_layers_is_refused() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 12)
    model = draft.model({"y": (draft.linear("only", x, 12, 3), ["batch", 3])})
    with pytest.raises(CannotApplyError, match="no head and no feed-forward unit was found in the model"):
        score(model, {"x": np.ones((2, 12), np.float32)}, (2,))


def test_no_rows_are_refused(model: ir.Model) -> None:
    with pytest.raises(InputError, match="there are no rows to score on"):
        by_forward(model, [])
