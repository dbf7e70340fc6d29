"""The pass `int8` takes the products it should, quantises their weights by column, and keeps what it is told to keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.compiler import syntax
from ffc.compiler.targets import processor
from ffc.graph.dialect.edit import constant
from tests import encoders
from tests.graphs import LIBRARY, WIDTH, Draft, Stock, count, encoder, feeds, masks, run_pass, run_passes

STAGES = ("opset", "clean", "fuse")


def sparse(*shape: int) -> np.ndarray:
    """Return a random weight with every other row zero.

    On processors without VNNI onnxruntime adds two neighbouring products of 8 bits in 16, which overflow at the ends of their
    range. With one of each two zero that cannot happen, so errors are those of rounding alone wherever this runs.
    """
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    array[1::2] = 0
    return array


def quantised(options: str = "", *, layers: int = 1, stages: tuple[str, ...] = STAGES) -> tuple[ir.Model, ffc.Log]:
    model = run_passes(encoder(layers=layers), *stages)
    (item,) = syntax.parse(f"int8{{{options}}}", LIBRARY)
    return model, run_pass(item, model)


def calls(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph if node.domain == "ffc" and "Int8" in node.op_type)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.reshape(-1, one.shape[-1]), other.reshape(-1, other.shape[-1])
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


def test_golden(golden_graph: Callable[[str, ir.Model], None]) -> None:
    golden_graph("int8", quantised("embeddings=true range=narrow")[0])


def test_every_product_with_a_constant_weight_is_taken_and_no_other() -> None:
    model, log = quantised(layers=2)
    assert log.done == {"q": 2, "k": 2, "v": 2, "attn_out": 2, "ffn_in": 2, "ffn_out": 2, "head": 1}
    assert calls(model) == {"LinearInt8": 9, "LinearInt8Gelu": 2, "LinearInt8Rows": 2}
    assert count(model, "AttentionMasked") == 2
    assert any("2 attentions stay fp32" in note for note in log.notes)


def test_it_works_without_fuse_before_it() -> None:
    model, log = quantised(stages=("opset",))
    assert log.count == 7
    assert calls(model) == {"LinearInt8": 6, "LinearInt8Rows": 1}
    assert count(model, "MatMul") == 2, "scores and context are products of two activations"


@pytest.mark.parametrize(
    ("skip", "left"),
    [("head", {"head"}), ("q,ffn_out", {"q", "ffn_out"}), ("pooler", set())],
)
def test_what_is_to_be_skipped_stays_fp32(skip: str, left: set[str]) -> None:
    if skip == "pooler":
        base = run_passes(encoder(), *STAGES)
        name = next(product.name for product in ffc.find_blocks(base).products if product.role == "head")
        skip, left = name, {"head"}
    model, log = quantised(f"skip={skip}")
    assert set(log.done) == {"q", "k", "v", "attn_out", "ffn_in", "ffn_out", "head"} - left
    assert {miss.where.split()[0] for miss in log.misses} == left
    assert all("as asked" in miss.why for miss in log.misses)
    assert sum(calls(model).values()) == 7 - len(left)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("skip=heads", "skip=heads names no role and no product of this model; did you mean 'head'"),
        ("skip=nothing_like_it", "skip=nothing_like_it names no role"),
        ("skip=autoo", "skip=autoo names no role and no product of this model; did you mean 'auto'"),
        ("range=ful", "option 'range' of pass 'int8' is 'ful' at column 12 of 'int8{range=ful}'; did you mean 'full'"),
        ("rows=ffn_uot", "rows=ffn_uot names no role; did you mean 'ffn_out'"),
    ],
)
def test_an_unknown_name_is_a_usage_error_with_the_nearest_one(options: str, message: str) -> None:
    with pytest.raises(ffc.UsageError, match=message):
        quantised(options)


def test_weights_are_symmetric_int8_with_a_scale_for_every_column() -> None:
    before = {p.weight.name: p.matrix() for p in ffc.find_blocks(encoder()).products}
    model, _ = quantised()
    seen = 0
    for node in model.graph:
        if "Int8" not in node.op_type:
            continue
        weight, scale = constant(node.inputs[1]), constant(node.inputs[2])
        assert weight is not None and scale is not None
        assert (weight.dtype, scale.dtype, scale.shape) == (np.dtype(np.int8), np.dtype(np.float32), (weight.shape[1],))
        assert weight.min() >= -127
        original = next(array for array in before.values() if array.shape == weight.shape and np.abs(array - weight * scale).max() < 0.05)
        assert (np.abs(original - weight * scale) <= scale * 0.5001).all()
        seen += 1
    assert seen == 7


def test_a_column_of_zeros_and_a_weight_that_is_not_finite() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 4)
    array = sparse(4, 3)
    array[:, 1] = 0
    infinite = array.copy()
    infinite[0, 0] = np.inf
    good, bad = (draft.op.MatMul(x, draft.weight(name, w)) for name, w in (("good", array), ("bad", infinite)))
    model = draft.model({"y": (good, ["batch", 3]), "z": (bad, ["batch", 3])})
    log = run_pass(LIBRARY["int8"](), model)
    assert log.count == 1
    assert [miss.why for miss in log.misses] == ["its weight is not finite"]
    found = Stock(model)({"x": np.ones((2, 4), np.float32)})["y"]
    assert not found[:, 1].any()
    assert np.allclose(found, array.sum(axis=0), atol=0.02)


def weights(model: ir.Model) -> list[np.ndarray]:
    """Return the int8 weights of a model's products."""
    found = [constant(node.inputs[1]) for node in model.graph if "Int8" in node.op_type]
    return [weight for weight in found if weight is not None]


def largest_pair(model: ir.Model) -> int:
    """Return the largest sum of two neighbouring weights of one sign."""
    parts = [np.maximum(sign * weight.astype(int), 0) for weight in weights(model) for sign in (1, -1)]
    return max(int((part[::2] + part[1::2]).max()) for part in parts)


@pytest.mark.parametrize("overflows", [True, False])
@pytest.mark.parametrize("asked", ["auto", "full", "narrow"])
def test_the_range_of_weights_is_narrowed_where_the_processor_overflows_or_on_demand(
    asked: str, overflows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "overflows", lambda: overflows)
    model, log = quantised(f"range={asked}")
    columns = np.concatenate([np.abs(weight.astype(int)).max(axis=0) for weight in weights(model)])
    if asked == "narrow" or (asked == "auto" and overflows):
        assert largest_pair(model) <= 128
        assert columns.min() >= 64
        assert columns.max() > 90, "no more is given away than overflow asks for"
    else:
        assert largest_pair(model) > 128
        assert (columns == 127).all()
    note = next(note for note in log.notes if "range" in note)
    told = {
        ("auto", True): "weights are narrowed so that none does (range=full keeps them",
        ("auto", False): "full range, which overflows on processors without VNNI (range=narrow does not)",
        ("full", True): "in 16 bits, which may overflow; range=full keeps the full range all the same",
        ("full", False): "full range, which overflows on processors without VNNI (range=narrow does not)",
    }.get((asked, overflows), "narrowed as asked")
    assert told in note


def test_by_default_the_range_suits_this_processor() -> None:
    found = weights(quantised()[0])
    wanted = weights(quantised(f"range={'narrow' if processor.overflows() else 'full'}")[0])
    assert len(found) == len(wanted) == 7
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_a_narrow_product_is_right_on_every_processor_and_a_full_one_where_nothing_overflows() -> None:
    random = np.random.default_rng(0)
    draft = Draft()
    x = draft.input("x", "batch", 256)
    weight = draft.weight("w", random.uniform(-1, 1, (256, 32)).astype(np.float32))
    model = draft.model({"y": (draft.op.MatMul(x, weight), ["batch", 32])})
    inputs = {"x": random.uniform(0, 1, (8, 256)).astype(np.float32)}
    expected = Stock(model)(inputs)["y"]
    error = {}
    for asked in ("narrow", "full"):
        changed = model.clone()
        run_pass(syntax.parse(f"int8{{range={asked}}}", LIBRARY)[0], changed)
        error[asked] = np.linalg.norm(Stock(changed)(inputs)["y"] - expected) / np.linalg.norm(expected)
    assert error["narrow"] < 0.01
    assert error["full"] > 0.05 if processor.overflows() else error["full"] < 0.01


def test_every_other_product_with_a_constant_is_left_with_its_reason() -> None:
    draft = Draft()
    op, x, cube = draft.op, draft.input("x", 6, 6), draft.input("cube", 1, 6, 6, 6)
    square = draft.normal("square", 6, 6)
    outputs = {
        "taken": op.MatMul(x, square),
        "left": op.MatMul(square, x),
        "stacked": op.MatMul(x, draft.normal("weights", 2, 6, 6)),
        "turned": op.Gemm(x, square, transA=1),
        "joined": op.Einsum(x, square, equation="ij,jk->ik"),
        "window": op.Conv(cube, draft.normal("kernel", 6, 6, 1, 1)),
        "scores": op.MatMul(x, x),
    }
    ranks = {"stacked": 3, "window": 4}
    model = draft.model({name: (value, [f"{name}{i}" for i in range(ranks.get(name, 2))]) for name, value in outputs.items()})
    log = run_pass(LIBRARY["int8"](), model)
    assert log.taken == ["other taken"]
    assert {miss.where: miss.why for miss in log.misses} == {
        "other left": "its constant is the left operand",
        "other stacked": "its weight has 3 axes, not 2",
        "other turned": "it is a Gemm with transA, alpha, beta, or a bias that is no constant vector; run `clean` before",
        "other joined": "Einsum is not taken; MatMul, Gemm and ffc's own products are",
        "other window": "Conv is not taken; MatMul, Gemm and ffc's own products are",
    }


def test_products_that_are_int8_already_are_left() -> None:
    model, _ = quantised()
    again = run_pass(LIBRARY["int8"](), model)
    assert (again.count, {miss.why for miss in again.misses}, len(again.misses)) == (0, {"it is int8 already"}, 7)


def looked_up(rows: int) -> ir.Model:
    """Return a model that looks tokens up in a table [rows, 16] and multiplies them by a weight."""
    draft = Draft()
    ids = draft.input("input_ids", "batch", "seq", dtype=ir.DataType.INT64)
    tokens = draft.op.Gather(draft.normal("table", rows, 16), ids, axis=0)
    return draft.model({"y": (draft.op.MatMul(tokens, draft.normal("w", 16, 4)), ["batch", "seq", 4])})


@pytest.mark.parametrize(("rows", "options", "taken"), [
    (1024, "", 1), (1023, "", None), (1024, "embeddings=false", None), (8, "embeddings=true", 1), (8, "embeddings=auto", None),
])  # fmt: skip
def test_tables_are_stored_as_int8_where_they_are_large_or_it_is_asked_for(rows: int, options: str, taken: int | None) -> None:
    (item,) = syntax.parse(f"int8{{{options}}}", LIBRARY)
    assert run_pass(item, looked_up(rows)).done.get("embedding tables") == taken


@pytest.mark.parametrize("number", [-np.inf, np.inf, np.nan])
@pytest.mark.parametrize("options", ["", "embeddings=true"])
def test_a_table_that_is_not_finite_stays(number: float, options: str) -> None:
    model = looked_up(1024)
    table = np.array(constant(model.graph.initializers["table"]))
    table[3, 5] = number
    model.graph.initializers["table"].const_value = ir.Tensor(table, name="table")
    (item,) = syntax.parse(f"int8{{{options}}}", LIBRARY)
    log = run_pass(item, model)
    assert not log.done.get("embedding tables") and [miss.why for miss in log.misses] == ["its table is not finite"]
    found = constant(model.graph.initializers["table"])
    assert found is not None and np.array_equal(found, table, equal_nan=True)


def test_tables_are_stored_by_row() -> None:
    plain, log = quantised("embeddings=false")
    assert (count(plain, "Embed"), log.done.get("embedding tables")) == (1, None)
    stored, log = quantised("embeddings=true")
    assert (count(stored, "EmbedInt8"), log.done["embedding tables"]) == (1, 3)
    unfused, log = quantised("embeddings=true", stages=("opset",))
    assert (count(unfused, "GatherInt8"), log.done["embedding tables"]) == (3, 3)
    for model in (stored, unfused):
        kept = [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT and v.shape is not None]
        assert not [v for v in kept if len(v.shape or ()) == 2 and (v.shape or ())[-1] == WIDTH]


def test_a_token_with_large_activations_does_not_coarsen_others_by_row() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 4)
    wide = draft.op.Relu(draft.op.Add(draft.op.MatMul(x, draft.weight("in", sparse(4, 16))), draft.normal("bias", 16)))
    narrow = draft.op.Add(draft.op.MatMul(wide, draft.weight("out", sparse(16, 4))), draft.normal("bias2", 4))
    model = draft.model({"y": (draft.op.Add(narrow, x), ["batch", 4])})
    inputs = {"x": np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)}
    inputs["x"][0] *= 1000
    expected = Stock(model)(inputs)["y"][1:]
    error = {}
    for rows in ("ffn_out,ffn_in", ""):
        changed = model.clone()
        run_pass(LIBRARY["int8"](rows=tuple(rows.split(",")) if rows else ()), changed)
        error[rows] = np.abs(Stock(changed)(inputs)["y"][1:] - expected).max()
    assert error["ffn_out,ffn_in"] < 0.1 * error[""]


@pytest.mark.parametrize("passes", ["int8", "fuse,int8"])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_real_export_stays_within_the_budget_on_every_mask(
    kind: encoders.Kind, passes: str, exported: Callable[..., Path], tmp_path: Path
) -> None:
    path, out = exported(kind), tmp_path / "out.onnx"
    result = ffc.compile(path, f"{passes}{{cosine=0.95}}", out=out)
    assert result.report.verdict is not None
    before, after = Stock(path), Stock(out)
    for length in (5, 33):
        for mask in masks(3, length).values():
            inputs = feeds(mask, vocabulary=encoders.VOCABULARY, types=kind == "bert")
            one, other = (found["last_hidden_state"][mask > 0] for found in (before(inputs), after(inputs)))
            assert cosine(one, other) > 0.95
    # of one byte a weight in the products and four in the embeddings
    assert out.stat().st_size < 0.55 * path.stat().st_size


def test_minilm_in_int8_keeps_its_meaning(minilm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    ffc.compile(minilm, "fuse,int8", out=out)
    mask = masks(3, 24)["right"]
    inputs = feeds(mask, vocabulary=30000)
    one, other = (Stock(path)(inputs)["last_hidden_state"] * mask[..., None] for path in (minilm, out))
    assert cosine(one.sum(axis=1), other.sum(axis=1)) > 0.98
