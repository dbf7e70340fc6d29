"""Layers, their Linears by role and their heads are found on any encoder; what is not understood is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from ffc.errors import CannotApplyError
from ffc.train.models.layers import ROLES, find_layers
from tests.encoders import FFN, HEADS, HIDDEN, Kind, random_model

WIDTH, UNITS, SIZE = 32, 40, 8
SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": WIDTH // SIZE,
    "intermediate_size": UNITS,
}
DEBERTA = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}
FIRST = {
    "bert": "bert.encoder.layer.0",
    "roberta": "roberta.encoder.layer.0",
    "distilbert": "distilbert.transformer.layer.0",
    "electra": "electra.encoder.layer.0",
    "mpnet": "mpnet.encoder.layer.0",
}
BY_CLASS: dict[str, tuple[str, dict[str, Any], str]] = {
    "XLM-R": ("XLMRoberta", {}, "encoder.layer.1"),
    "CamemBERT": ("Camembert", {}, "encoder.layer.1"),
    "DeBERTa, positions in its own projections": ("DebertaV2", {**DEBERTA, "share_att_key": False}, "encoder.layer.1"),
    "DeBERTa, positions in those of queries and keys": (
        "DebertaV2",
        {**DEBERTA, "share_att_key": True},
        "encoder.layer.1",
    ),
    "ViT": ("ViT", {"image_size": 16, "patch_size": 8}, "layers.1"),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "layers that share weights": ("Albert", {}, "'encoder.albert_layer_groups': 2 layers share the weights of 1"),
    "a gate": ("NomicBert", {}, "'layers.0': one Linear is expected as ffn_in, there is none among mlp.gate_proj"),
    "heads that convolve": ("ConvBert", {}, "what its Linear 'attention.self.conv_kernel_layer' does is not known"),
    "convolution in attention": ("Nystromformer", {}, "its attention has a parameter 'conv.weight'"),
    "Conv1D in place of Linear": (
        "GPT2",
        {"bos_token_id": 0, "eos_token_id": 0},
        "no ModuleList holds attention in Linears",
    ),
    "several feed-forward networks": ("MobileBert", {}, "expected as ffn_in, there is intermediate.dense and ffn.0"),
}


def made(prefix: str, options: dict[str, Any]) -> nn.Module:
    config = getattr(transformers, f"{prefix}Config")(**SMALL, **options)
    model: nn.Module = getattr(transformers, f"{prefix}Model")(config)
    return model


@pytest.mark.parametrize(("kind", "first"), FIRST.items())
def test_layers_are_found_under_a_head(kind: Kind, first: str) -> None:
    model = random_model(kind, 3, 0, True, "eager")
    layers = find_layers(model)
    assert [layer.index for layer in layers] == [0, 1, 2]
    assert layers[0].name == first
    for layer in layers:
        assert tuple(layer.linears) == ROLES
        assert all(model.get_submodule(layer.names[role]) is linear for role, linear in layer.linears.items())
        assert (layer.heads, layer.head_size, layer.units) == (HEADS, HIDDEN // HEADS, FFN)
        assert any(getattr(layer.attention, name, None) == HEADS for name in ("num_attention_heads", "n_heads"))
    assert len({id(linear) for layer in layers for linear in layer.linears.values()}) == 3 * len(ROLES)


def test_roles_are_told_apart_by_name() -> None:
    names = find_layers(random_model("bert", 1, 0, True))[0].names
    assert {role: name.removeprefix("bert.encoder.layer.0.") for role, name in names.items()} == {
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "attn_out": "attention.output.dense",
        "ffn_in": "intermediate.dense",
        "ffn_out": "output.dense",
    }


@pytest.mark.parametrize(("prefix", "options", "last"), BY_CLASS.values(), ids=BY_CLASS)
def test_further_architectures_are_understood(prefix: str, options: dict[str, Any], last: str) -> None:
    layers = find_layers(made(prefix, options))
    assert (len(layers), layers[1].name) == (2, last)
    assert (layers[1].heads, layers[1].head_size, layers[1].units) == (WIDTH // SIZE, SIZE, UNITS)
    assert len(layers[1].positions) == (2 if options.get("share_att_key") is False else 0)


def test_layers_are_found_inside_a_wrapper() -> None:
    wrapper = nn.ModuleDict({"inside": nn.Sequential(random_model("bert", 2, 0, False))})
    assert [layer.name for layer in find_layers(wrapper)] == ["inside.0.encoder.layer.0", "inside.0.encoder.layer.1"]


@pytest.mark.parametrize(("prefix", "options", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused_with_the_nearest_miss(
    prefix: str, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(CannotApplyError) as caught:
        find_layers(made(prefix, options))
    message = str(caught.value)
    assert message.startswith(f"no encoder layers were found in {prefix}Model: ")
    assert why in message and "\n" not in message


def test_no_encoder_at_all_is_refused() -> None:
    with pytest.raises(CannotApplyError, match="no encoder layers were found in Linear: no ModuleList holds attention"):
        find_layers(nn.Linear(3, 3))


def test_two_encoders_are_refused() -> None:
    both = nn.ModuleDict({"a": random_model("bert", 1, 0, False), "b": random_model("bert", 1, 1, False)})
    with pytest.raises(CannotApplyError, match=r"several encoders, at 'a\.encoder\.layer' and 'b\.encoder\.layer'"):
        find_layers(both)


def test_a_layer_that_stands_twice_is_refused() -> None:
    model = random_model("bert", 2, 0, False)
    layers = model.get_submodule("encoder.layer")
    assert isinstance(layers, nn.ModuleList)
    layers[1] = layers[0]
    with pytest.raises(CannotApplyError, match=r"layers at 'encoder\.layer' of BertModel share weights"):
        find_layers(model)


def test_a_weight_that_two_layers_read_is_refused() -> None:
    model = random_model("bert", 2, 0, False)
    first, second = find_layers(model)
    second.linears["ffn_in"].weight = first.linears["ffn_in"].weight
    with pytest.raises(CannotApplyError, match="share weights"):
        find_layers(model)


def test_a_linear_of_another_shape_than_its_role_needs_is_refused() -> None:
    model = random_model("bert", 1, 0, False)
    find_layers(model)[0].linears["k"].out_features = HIDDEN // 2
    with pytest.raises(
        CannotApplyError, match=rf"'encoder\.layer\.0': its k is {HIDDEN} -> 48, expected {HIDDEN} -> {HIDDEN}"
    ):
        find_layers(model)


def test_a_parameter_beside_the_linears_is_refused() -> None:
    model = random_model("bert", 1, 0, False)
    find_layers(model)[0].attention.register_parameter("sink", nn.Parameter(torch.zeros(HEADS)))
    with pytest.raises(CannotApplyError, match=r"its attention has a parameter 'sink' \[4\] that is not understood"):
        find_layers(model)
