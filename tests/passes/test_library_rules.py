"""The library is proved entry by entry: each rule on both sides, each lowering against the body, int8 against fp32.

Whoever adds a rule, a function or a lowering has it tested here; a function whose tensors have names of their own needs an entry
in `arguments`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ffc.compiler.rules import Rule, nothing_for_one_query
from ffc.graph.dialect import ops
from ffc.graph.dialect.function import FUNCTIONS, Function, Lowering, called
from ffc.graph.dialect.trace import Program, trace
from ffc.graph.execute import Runner
from ffc.graph.shapes.inference import infer
from tests.graphs import LIBRARY, LOWEST, Draft, Feeds, of_program
from tests.kernels import needs_norm_of_one, needs_quantize_linear
from tests.rule_proofs import prove, samples

SEEDS = (0, 1, 2)

_NEEDS = {"round": [needs_quantize_linear]}
"""Marks by how the name of a rule begins."""
RULES = [
    pytest.param(rule, id=f"{name}:{rule.name}", marks=_NEEDS.get(rule.name.partition("-")[0], []))
    for name, kind in LIBRARY.items()
    for rule in kind.rules
]
LOWERINGS = [(function, each) for function in FUNCTIONS.values() for each in function.lowerings]


@pytest.mark.parametrize("rule", RULES)
def test_rule_fires_on_its_samples_alone_and_both_sides_compute_the_same(rule: Rule) -> None:
    fired = [prove(rule, sample) for sample in samples(rule, SEEDS)]
    assert sum(map(bool, fired)) >= len(SEEDS)


@pytest.mark.parametrize("rule", RULES)
def test_rule_that_fires_on_symbolic_shapes_computes_the_same_at_their_sizes(rule: Rule) -> None:
    for sample in samples(rule, SEEDS):
        prove(rule, sample, symbolic=True)


def test_every_rule_has_a_name_of_its_own_in_its_pass() -> None:
    for kind in LIBRARY.values():
        names = [rule.name for rule in kind.rules]
        assert len(names) == len(set(names))


# Functions

SHAPES = [pytest.param((1, 1, 1, 1), marks=needs_norm_of_one), (1, 9, 2, 8), (2, 5, 3, 4), (3, 4, 4, 16)]
"""Batch, tokens, heads, head size."""


def arguments(function: Function, shape: tuple[int, int, int, int], random: np.random.Generator) -> dict[str, np.ndarray]:
    """Return random tensors for a function, by parameter name."""
    batch, tokens, heads, size = shape
    width, outer, rows = heads * size, 3 * heads * size + 1, 13

    def normal(*dims: int, mean: float = 0.0) -> np.ndarray:
        return (mean + random.standard_normal(dims)).astype(np.float32)

    def int8(*dims: int) -> np.ndarray:
        return random.integers(-127, 128, dims, np.int8)

    quantised, half = function.precision == "int8", np.float16 if function.precision == "half" else np.float32
    table = int8(rows, width) if quantised else normal(rows, width).astype(half)
    scales = random.uniform(0.001, 0.01, (rows, 1)).astype(np.float32)
    known: dict[str, np.ndarray] = {
        "x": normal(batch, tokens, width) * 3,
        "skip": normal(batch, tokens, width),
        "w": int8(width, outer) if quantised else normal(width, outer),
        "w_scale": random.uniform(0.001, 0.01, outer).astype(np.float32),
        "b": normal(outer),
        "q": normal(batch, tokens, width).astype(half),
        "k": normal(batch, tokens, width).astype(half),
        "v": normal(batch, tokens, width).astype(half),
        "gamma": normal(width, mean=1),
        "beta": normal(width),
        "ids": random.integers(0, rows, (batch, tokens)),
        "types": random.integers(0, rows, (batch, tokens)),
        "positions": np.arange(tokens)[None],
        **dict.fromkeys(("word", "type_table", "position", "table"), table),
        **dict.fromkeys(("word_scale", "type_scale", "position_scale", "scale"), scales),
        "mask": additive_mask(random, batch, heads, tokens),
    }
    return {name: known[name] for name in function.tensors}


def additive_mask(random: np.random.Generator, batch: int, heads: int, tokens: int) -> np.ndarray:
    """Return a mask with batch and heads spelled out or not, padding anywhere, and in every row at least one token that stays."""
    planes = int(random.choice([1, batch])), int(random.choice([1, heads]))
    keep = random.random((*planes, tokens, tokens)) < 0.6
    keep |= np.eye(tokens, dtype=np.bool_)
    bias = random.standard_normal(keep.shape) if random.random() < 0.5 else np.zeros(keep.shape)
    return np.where(keep, bias, LOWEST).astype(np.float32)


def settings(function: Function, shape: tuple[int, int, int, int]) -> list[dict[str, Any]]:
    """Return attributes for a function, each set to be tried."""
    choices: dict[str, tuple[Any, ...]] = {
        "heads": (shape[2],),
        "scale": (0.7 * shape[3] ** -0.5,),
        "epsilon": (1e-6, 0.5),  # a small one, as models have it, does not show where it is left out
        "approximate": ("none", "tanh"),
    }
    names = [name for name in function.attributes if name in choices]
    return [dict(zip(names, each, strict=True)) for each in itertools.product(*(choices[name] for name in names))]


def run_program(program: Program, inputs: Feeds, attributes: Mapping[str, Any]) -> np.ndarray:
    return Runner(of_program(program, inputs, {}, attributes), optimise=False).run(inputs)["y"]


def assert_close(expected: np.ndarray, found: np.ndarray) -> None:
    """Compare to rounding: 1e-5 of the scale in float32, four steps of half (2^-10 each) in float16."""
    scale = np.abs(expected).max()
    assert scale > 0
    assert (expected.shape, expected.dtype) == (found.shape, found.dtype)
    assert np.abs(expected - found).max() <= (4 * 2.0**-10 if expected.dtype == np.float16 else 1e-5) * scale


def name_of(item: Function | Lowering) -> str:
    return item.name if isinstance(item, Function) else f"{item.target}:{item.name}"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("function", "lowering"), LOWERINGS, ids=name_of)
def test_lowering_computes_what_the_body_says(function: Function, lowering: Lowering, shape: tuple[int, int, int, int]) -> None:
    body = function.body
    assert trace(lowering.program).inputs.keys() == trace(body).inputs.keys()
    for seed in SEEDS:
        inputs = arguments(function, shape, np.random.default_rng(seed))
        tried = [given for given in settings(function, shape) if given.items() >= lowering.given.items()]
        assert tried
        for attributes in tried:
            assert_close(run_program(body, inputs, attributes), run_program(lowering.program, inputs, attributes))


@pytest.mark.parametrize("lowering", ops.LinearGelu.lowerings, ids=name_of)
def test_lowering_of_a_product_computes_in_half_what_the_body_says(lowering: Lowering) -> None:
    inputs = {name: array.astype(np.float16) for name, array in arguments(ops.LinearGelu, SHAPES[2], np.random.default_rng(0)).items()}
    found = run_program(lowering.program, inputs, lowering.given)
    assert found.dtype == np.float16
    assert_close(run_program(ops.LinearGelu.body, inputs, lowering.given), found)


@pytest.mark.parametrize("function", [ops.LinearInt8, ops.LinearInt8Rows], ids=name_of)
def test_int8_lowering_takes_inputs_that_are_zero_throughout(function: Function) -> None:
    (lowering,) = function.lowerings
    inputs = arguments(function, (2, 3, 1, 4), np.random.default_rng(0))
    inputs["x"][0, 1] = 0
    some = run_program(lowering.program, inputs, {})
    assert np.allclose(some[0, 1], inputs["b"], atol=1e-6)
    inputs["x"][:] = 0
    assert np.allclose(run_program(lowering.program, inputs, {}), inputs["b"], atol=1e-6)


MASKED = [(function, each) for function, each in LOWERINGS if function.mask]


@pytest.mark.parametrize("low", [-1e4, -1e9, LOWEST, -np.inf], ids=str)
@pytest.mark.parametrize(("function", "lowering"), MASKED, ids=name_of)
def test_query_that_may_attend_to_nothing_gets_what_the_body_says(function: Function, lowering: Lowering, low: float) -> None:
    or_zero, half = function.name.startswith("AttentionOrZero"), function.precision == "half"
    if (half and np.isfinite(low)) or (np.isinf(low) and not or_zero):
        return  # half cannot tell -1e4 from less; minus infinity has a meaning in AttentionOrZero alone
    for planes, random in ((1, np.random.default_rng(0)), (2, np.random.default_rng(1))):
        inputs = arguments(function, (3, 5, 2, 4), random)
        keep = nothing_for_one_query(3, planes, 5)(random)
        inputs["mask"] = np.where(keep, 0.0, low).astype(np.float32)
        attributes = {"heads": 2, "scale": 0.5}
        body, found = (run_program(program, inputs, attributes) for program in (function.body, lowering.program))
        assert_close(body, found)
        mean = np.broadcast_to(inputs["v"].astype(np.float32).mean(axis=1, keepdims=True), found.shape)
        nothing = ~keep.any(axis=-1)[:, 0]
        if low < -1e4:
            assert np.allclose(found[nothing], 0 if np.isinf(low) else mean[nothing], atol=2e-3 if half else 1e-5)
        else:
            inputs["mask"] = np.where(nothing[:, None, :, None], 0, inputs["mask"]).astype(np.float32)
            unmasked = run_program(function.body, inputs, attributes)
            assert np.allclose(unmasked, found, atol=5e-3), "beside -1e4 scores lose a thousandth, not all"


@pytest.mark.parametrize(("function", "lowering"), MASKED, ids=name_of)
def test_row_masked_throughout_is_finite_and_leaves_other_rows_alone(function: Function, lowering: Lowering) -> None:
    inputs = arguments(function, (3, 5, 2, 4), np.random.default_rng(0))
    inputs["mask"] = np.zeros((3, 1, 5, 5), np.float32)
    attributes = {"heads": 2, "scale": 0.5}
    expected = run_program(lowering.program, inputs, attributes)
    inputs["mask"][1] = LOWEST
    for program in (lowering.program, function.body):
        found = run_program(program, inputs, attributes)
        assert np.isfinite(found).all()
        assert_close(expected[[0, 2]], found[[0, 2]])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("function", [each for each in FUNCTIONS.values() if each.quantises], ids=name_of)
def test_int8_product_is_within_its_rounding_of_the_fp32_product(function: Function, shape: tuple[int, int, int, int]) -> None:
    inputs = arguments(function, shape, np.random.default_rng(0))
    # Two products of 8 bits each are added in 16 on processors without VNNI; up to 64 no sum of two overflows, wherever this runs.
    inputs["w"] = np.clip(inputs["w"], -64, 64)
    weight = inputs["w"].astype(np.float32) * inputs["w_scale"]
    x = inputs["x"]
    # One step of x's quantiser, over the tensor or over each row, times the weights that it meets, bounds the error. Rows are at most 1 in
    # magnitude after the division and share one quantiser, whose range also holds 0.
    if function.scaled_by_row:
        step = 2 / 255 * np.abs(x).max(axis=-1, keepdims=True)
    else:
        step = np.full((*x.shape[:2], 1), (max(0, x.max()) - min(0, x.min())) / 255)
    bound = step * np.abs(weight).sum(axis=0) * 1.14  # GELU is at most 1.13 steep
    for attributes in settings(function, shape):
        found = run_program(function.body, inputs, attributes)
        expected = run_program(function.exact.body, {"x": x, "w": weight, "b": inputs["b"]}, attributes)
        error = np.abs(found - expected)
        assert (error <= bound + 1e-4).all()
        assert error.max() > 0, "it is not quantised at all"


@pytest.mark.parametrize("function", [ops.EmbedInt8, ops.GatherInt8], ids=name_of)
def test_int8_tables_are_the_dequantised_rows(function: Function) -> None:
    shape = (2, 6, 2, 4)
    inputs = arguments(function, shape, np.random.default_rng(0))
    if function is ops.GatherInt8:
        found = run_program(function.body, inputs, {})
        assert np.allclose(found, (inputs["table"] * inputs["scale"])[inputs["ids"]])
        return
    tables = {name: (inputs[name] * inputs[scale]).astype(np.float32) for name, scale in function.scales.items()}
    others = {name: inputs[name] for name in ("ids", "types", "positions", "gamma", "beta")}
    for attributes in settings(function, shape):
        found = run_program(function.body, inputs, attributes)
        expected = run_program(ops.Embed.body, {**tables, **others}, attributes)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("function", [e for e in FUNCTIONS.values() if e.precision == "half" and e.exact], ids=name_of)
def test_function_of_half_precision_is_within_its_rounding_of_the_one_in_float32(
    function: Function, shape: tuple[int, int, int, int]
) -> None:
    inputs = arguments(function, shape, np.random.default_rng(0))
    wide = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in inputs.items()}
    assert function.tensors == function.exact.tensors
    for attributes in settings(function, shape):
        found = run_program(function.body, inputs, attributes)
        expected = run_program(function.exact.body, wide, attributes)
        assert np.abs(found - expected).max() <= 4 * 2.0**-10 * np.abs(expected).max()


def test_rows_of_a_half_table_are_float32() -> None:
    inputs = arguments(ops.GatherHalf, SHAPES[1], np.random.default_rng(0))
    found = run_program(ops.GatherHalf.body, inputs, {})
    assert found.dtype == np.float32
    assert np.array_equal(found, inputs["table"][inputs["ids"]])


def test_lowering_is_chosen_by_attribute_and_rank() -> None:
    draft = Draft()
    x, wide = draft.input("x", "batch", 4), draft.input("wide", "batch", 2, 3, 4)
    gamma, beta = (draft.normal(name, 4) for name in ("gamma", "beta"))
    weight, bias = draft.normal("weight", 4, 4), draft.normal("bias", 4)
    values = [draft.op.ffc.LinearGelu(x, weight, bias, approximate=form) for form in ("none", "tanh")]
    values += [draft.op.ffc.AddNorm(value, value, gamma, beta, epsilon=1e-5) for value in (x, wide)]
    model = draft.model({f"y{index}": (value, ["batch", 4]) for index, value in enumerate(values)})
    shapes = infer(model)
    found = [next(called(node).ways(node, "cuda", shapes), None) for node in model.graph if node.domain == "ffc"]
    assert [entry and entry.name for entry in found] == ["bias-gelu", "fast-gelu", "skip-layer-norm", None]


def test_a_way_to_write_a_product_is_one_to_write_it_with_an_activation_behind_it() -> None:
    for plain in (ops.LinearInt8, ops.LinearInt8Rows):
        for activation in ("Relu", "Gelu"):
            assert [each.name for each in plain.activated(activation).lowerings] == ["matmul-integer-to-float"]
