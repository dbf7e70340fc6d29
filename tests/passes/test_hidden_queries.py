"""A query that may attend to nothing keeps what the graph gives it, also where a head reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from tests import encoders
from tests.graphs import LOWEST, Draft, Stock, count, difference, masks

if TYPE_CHECKING:
    import torch

WIDTH, HEADS = 8, 2

Mask = Callable[[Any, Any, Any, Any], Any]
"""Probabilities of scores, given which keys come no later and which are real."""


def added(low: float) -> Mask:
    return lambda op, scores, past, real: op.Softmax(op.Add(scores, op.Where(op.And(past, real), np.float32(0), np.float32(low))), axis=-1)


def summed(low: float) -> Mask:
    def probabilities(op: Any, scores: Any, past: Any, real: Any) -> Any:
        scores = op.Add(op.Add(scores, op.Where(past, 0.0, low)), op.Where(real, 0.0, low))
        return op.Softmax(scores, axis=-1)

    return probabilities


def filled(low: float) -> Mask:
    return lambda op, scores, past, real: op.Softmax(op.Where(op.And(past, real), scores, low), axis=-1)


def filled_over_a_sum(low: float) -> Mask:
    def probabilities(op: Any, scores: Any, past: Any, real: Any) -> Any:
        return op.Softmax(op.Where(real, op.Add(scores, op.Where(past, 0.0, low)), low), axis=-1)

    return probabilities


def filled_twice(low: float, later: float) -> Mask:
    return lambda op, scores, past, real: op.Softmax(op.Where(past, op.Where(real, scores, low), later), axis=-1)


def summed_apart(low: float, later: float) -> Mask:
    def probabilities(op: Any, scores: Any, past: Any, real: Any) -> Any:
        scores = op.Add(op.Add(scores, op.Where(real, 0.0, low)), op.Where(past, 0.0, later))
        return op.Softmax(scores, axis=-1)

    return probabilities


def filled_and_summed(low: float, later: float) -> Mask:
    return lambda op, scores, past, real: op.Softmax(op.Add(op.Where(real, scores, low), op.Where(past, 0.0, later)), axis=-1)


def guarded(mask: Mask) -> Mask:
    def probabilities(op: Any, *given: Any) -> Any:
        found = mask(op, *given)
        return op.Where(op.IsNaN(found), 0.0, found)

    return probabilities


def masked_twice(op: Any, scores: Any, past: Any, real: Any) -> Any:
    keep = op.And(past, real)
    return op.Where(keep, op.Softmax(op.Where(keep, scores, -1e9), axis=-1), 0.0)


# What a query that sees nothing gets: the mean of all values, what it would get unmasked, or 0.
FORMS: Mapping[str, Mask] = {
    "added -1e4": added(-1e4),  # as if unmasked
    "added -1e9": added(-1e9),  # the mean
    "added lowest": added(LOWEST),
    "summed -1e9": summed(-1e9),  # the mean of what one mask alone hides
    "summed lowest": summed(LOWEST),
    "filled -1e4": filled(-1e4),  # the mean
    "filled lowest": filled(LOWEST),
    "filled -1e9 over a sum": filled_over_a_sum(-1e9),
    "added -inf, guarded": guarded(added(-np.inf)),  # 0
    "summed -inf, guarded": guarded(summed(-np.inf)),
    "filled -inf, guarded": guarded(filled(-np.inf)),
    "added lowest, guarded": guarded(added(LOWEST)),  # the mean
    "masked twice": masked_twice,  # 0
    # What hides less is seen where all is hidden.
    "filled -1e9, then -1e4": filled_twice(-1e9, -1e4),
    "filled -1e4, then -1e9": filled_twice(-1e4, -1e9),
    "filled -inf, then lowest": filled_twice(-np.inf, LOWEST),
    "filled lowest, then -1e4, guarded": guarded(filled_twice(LOWEST, -1e4)),
    "filled -inf, then lowest, guarded": guarded(filled_twice(-np.inf, LOWEST)),
    "summed -inf and lowest": summed_apart(-np.inf, LOWEST),
    "summed -1e9 and lowest": summed_apart(-1e9, LOWEST),
    "summed -inf and lowest, guarded": guarded(summed_apart(-np.inf, LOWEST)),
    "summed lowest, guarded": guarded(summed(LOWEST)),  # 0 where both hide all
    "filled lowest and lowest in sum, guarded": guarded(filled_and_summed(LOWEST, LOWEST)),
    "summed lowest and -inf, guarded": guarded(summed_apart(LOWEST, -np.inf)),
    "filled -inf and lowest in sum": filled_and_summed(-np.inf, LOWEST),
    "filled lowest and -1e9 in sum": filled_and_summed(LOWEST, -1e9),
}


def causal(mask: Mask) -> ir.Model:
    """Return a causal attention over x [batch, seq, 8] whose head reads all tokens: y [batch, 8]."""
    draft = Draft()
    op = draft.op
    x, kept = draft.input("x", "batch", "seq", WIDTH), draft.input("mask", "batch", "seq", dtype=ir.DataType.INT64)
    places = op.Range(np.int64(0), op.Squeeze(op.Shape(x, start=1, end=2), [0]), np.int64(1))
    past = op.LessOrEqual(op.Unsqueeze(places, [0, 1, 2]), op.Unsqueeze(places, [0, 1, 3]))
    real = op.Cast(op.Unsqueeze(kept, [1, 2]), to=ir.DataType.BOOL.value)

    def heads(role: str) -> Any:
        return op.Transpose(op.Reshape(draft.linear(role, x, WIDTH, WIDTH), [0, 0, HEADS, -1]), perm=[0, 2, 1, 3])

    q, k, v = (heads(role) for role in "qkv")
    scores = op.Mul(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), np.float32(0.5))
    context = op.Transpose(op.MatMul(mask(op, scores, past, real), v), perm=[0, 2, 1, 3])
    out = draft.linear("out", op.Reshape(context, [0, 0, WIDTH]), WIDTH, WIDTH)
    return draft.model({"y": (op.ReduceMean(op.Tanh(out), [1], keepdims=0), ["batch", WIDTH])})


def all_masks(batch: int, length: int) -> dict[str, np.ndarray]:
    """Return the masks of `masks`, and one that pads rows on the left with more than half of their tokens."""
    far = np.arange(length) >= np.linspace(0, length - 1, batch).astype(int)[:, None]
    return {**masks(batch, length), "far left": far.astype(np.int64)}


@pytest.mark.parametrize("target", ["cpu", "portable"])
@pytest.mark.parametrize("form", FORMS)
def test_attention_is_fused_and_equal_to_the_graph_in_every_form_of_mask(form: str, target: str) -> None:
    model = causal(FORMS[form])
    result = ffc.compile(model, "fuse", target=target)
    assert not [said for step in result.report.steps for said in step.skipped]
    assert count(result.model, "Attention") == (target == "cpu")
    before, after = Stock(model), Stock(result.model)
    for length in (1, 6, 17):
        x = np.random.default_rng(length).standard_normal((4, length, WIDTH)).astype(np.float32)
        for kept in all_masks(4, length).values():
            inputs = {"x": x, "mask": kept}
            assert difference(before(inputs), after(inputs)) < 1e-4


def per_query(attention: Callable[[Any, Any, Any], Any]) -> ir.Model:
    """Return an attention over x [batch, seq, 8] whose mask [batch, 1, seq, seq] is added; y [batch, seq, 8]."""
    draft = Draft()
    x, mask = draft.input("x", "batch", "seq", WIDTH), draft.input("mask", "batch", 1, "seq", "seq")
    context = attention(draft.op, x, mask)
    return draft.model({"y": (draft.linear("out", context, WIDTH, WIDTH), ["batch", "seq", WIDTH])})


def by_operator(op: Any, x: Any, mask: Any) -> Any:
    return op.Attention(x, x, x, mask, q_num_heads=HEADS, kv_num_heads=HEADS)


def by_softmax(guard: bool) -> Callable[[Any, Any, Any], Any]:
    def attention(op: Any, x: Any, mask: Any) -> Any:
        q = op.Transpose(op.Reshape(x, [0, 0, HEADS, -1]), perm=[0, 2, 1, 3])
        places = op.Range(np.int64(0), op.Squeeze(op.Shape(x, start=1, end=2), [0]), np.int64(1))
        past = op.LessOrEqual(op.Unsqueeze(places, [0]), op.Unsqueeze(places, [1]))
        scores = op.Add(op.Add(op.MatMul(q, op.Transpose(q, perm=[0, 1, 3, 2])), mask), op.Where(past, 0.0, LOWEST))
        found = op.Softmax(scores, axis=-1)
        found = op.Where(op.IsNaN(found), 0.0, found) if guard else found
        return op.Reshape(op.Transpose(op.MatMul(found, q), perm=[0, 2, 1, 3]), [0, 0, WIDTH])

    return attention


@pytest.mark.parametrize("low", [-1e4, -1e30, -1e38, LOWEST, -np.inf])
@pytest.mark.parametrize("target", ["cpu", "portable"])
@pytest.mark.parametrize("attention", [by_operator, by_softmax(guard=True), by_softmax(guard=False)], ids=["operator", "guarded", "bare"])
def test_a_float_mask_that_hides_all_from_one_query_means_what_the_graph_says(attention: Any, target: str, low: float) -> None:
    model = per_query(attention)
    after = ffc.compile(model, "fuse", target=target).model
    assert count(after, "Attention", "Softmax") == 1
    random = np.random.default_rng(0)
    hidden = random.random((3, 1, 6, 6)) < 0.3
    hidden[0, 0, 2], hidden[1, 0, 4, :5], hidden[:, 0, 0, 0] = True, True, False  # the latter sees what comes later
    feeds = {"x": random.standard_normal((3, 6, WIDTH)).astype(np.float32), "mask": np.where(hidden, low, 0).astype(np.float32)}
    one, other = Stock(model)(feeds)["y"], Stock(after)(feeds)["y"]
    finite = np.isfinite(one)
    assert finite.mean() > 0.8
    assert np.abs(one[finite] - other[finite]).max() < 1e-4 * np.abs(one[finite]).max()


def test_what_no_mask_of_a_call_can_say_stays_and_is_told() -> None:
    result = ffc.compile(causal(filled_over_a_sum(-1e4)), "fuse")
    assert count(result.model, "Softmax") == 1
    assert any("a query may see nothing" in str(step.skipped) for step in result.report.steps)


def test_a_mask_made_safe_for_kernels_costs_no_operator() -> None:
    assert count(ffc.compile(causal(added(LOWEST)), "fuse").model, "Max") == 0


# Exports


def _deberta() -> torch.nn.Module:
    import transformers

    config = transformers.DebertaV2Config(
        **_SIZES, max_position_embeddings=80, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8,
        norm_rel_ebd="layer_norm", share_att_key=True, type_vocab_size=0, num_labels=3,
    )  # fmt: skip
    return transformers.DebertaV2ForSequenceClassification(config)


def _spans() -> torch.nn.Module:
    import torch

    class Spans(torch.nn.Module):
        """DeBERTa, an LSTM, and scores of spans of one and two tokens, as GLiNER has them."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = _deberta().deberta
            self.rnn = torch.nn.LSTM(32, 16, bidirectional=True, batch_first=True)
            self.start, self.end, self.out = (torch.nn.Linear(*sizes) for sizes in ((32, 12), (32, 12), (24, 5)))

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            tokens, _ = self.rnn(self.encoder(input_ids, attention_mask=attention_mask)[0])
            start, end = self.start(tokens), self.end(tokens)
            ends = (end, torch.cat([end[:, 1:], end[:, -1:]], 1))
            return self.out(torch.stack([torch.cat([start, each], -1) for each in ends], 2).relu())

    return Spans()


def _clip(attention: str) -> torch.nn.Module:
    import transformers

    sizes = {**_SIZES, "max_position_embeddings": 80, "attn_implementation": attention}
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**sizes, eos_token_id=2, bos_token_id=1))


def _modern(attention: str) -> torch.nn.Module:
    import transformers

    config = transformers.ModernBertConfig(
        **_SIZES, max_position_embeddings=300, local_attention=16, global_attn_every_n_layers=2, num_labels=3,
        pad_token_id=0, classifier_pooling="mean", attn_implementation=attention,
    )  # fmt: skip
    return transformers.ModernBertForSequenceClassification(config)


_SIZES: Mapping[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 120
}  # fmt: skip
_TOWERS: Mapping[str, Callable[[], torch.nn.Module]] = {
    "deberta": _deberta,
    "spans": _spans,
    "clip eager": lambda: _clip("eager"),
    "clip sdpa": lambda: _clip("sdpa"),
    "modernbert eager": lambda: _modern("eager"),
    "modernbert sdpa": lambda: _modern("sdpa"),
}


def write(kind: str, dynamo: bool, path: Path) -> None:
    import torch

    class First(torch.nn.Module):
        """The first output of a model."""

        def __init__(self) -> None:
            super().__init__()
            self.model = _TOWERS[kind]()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            found = self.model(input_ids=input_ids, attention_mask=attention_mask)
            return found if isinstance(found, torch.Tensor) else found[0]

    torch.manual_seed(0)
    model = First().eval()
    encoders.perturb(model, 0, zero_biases=False)
    ids = torch.randint(5, 110, (2, 40))
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    axes = {0: "batch", 1: "length"}
    names = ["input_ids", "attention_mask"]
    dims = {axis: torch.export.Dim(name) for axis, name in axes.items()}
    how: dict[str, Any] = {"dynamic_axes": dict.fromkeys(names, axes), "opset_version": 18}
    if dynamo:
        how = {"dynamic_shapes": dict.fromkeys(names, dims), "external_data": False, "verbose": False}
    with torch.no_grad(), encoders.minilm_example().quiet():
        torch.onnx.export(model, (ids, mask), str(path), dynamo=dynamo, input_names=names, output_names=["y"], **how)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "TorchScript"])
@pytest.mark.parametrize("kind", _TOWERS)
def test_an_export_is_fused_and_right_on_every_mask_and_comes_through_int8(
    kind: str, dynamo: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    write(kind, dynamo, path)
    result = ffc.compile(path, "fuse")
    assert (count(result.model, "Attention"), count(result.model, "Softmax", "IsNaN")) == (2, 0)
    before, after = Stock(path), Stock(result.model)
    for length in (6, 33, 70):
        ids = np.random.default_rng(length).integers(5, 110, (4, length))
        for mask in all_masks(4, length).values():
            inputs = {"input_ids": ids, "attention_mask": mask}
            one, other = ({"y": run(inputs)["y"]} for run in (before, after))
            per_token = one["y"].ndim > 2
            if per_token:
                one, other = ({"y": each["y"][mask > 0]} for each in (one, other))
            assert difference(one, other) < 1e-4
    assert count(ffc.compile(path, "fuse,int8").model, "Attention") == 2
