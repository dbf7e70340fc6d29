"""Make the decoders that tests run on: small random ones without a cache, exported as a user would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.encoders import minilm_example, perturb

if TYPE_CHECKING:
    import torch

Kind = Literal["GPT2", "OPT"]
Way = Literal["dynamo", "TorchScript"]
KINDS: tuple[Kind, ...] = ("GPT2", "OPT")
WAYS: tuple[Way, ...] = ("dynamo", "TorchScript")

VOCABULARY, HEADS, UNITS, LAYERS = 60, 4, 48, 2
_WIDTH, _POSITIONS = 32, 34


def export(kind: Kind, way: Way, path: Path) -> Path:
    """Export a random language model whose output is ``logits``, [batch, length, words], and return the path."""
    import torch

    inputs, names = (torch.randint(5, VOCABULARY, (2, 9)), torch.ones(2, 9, dtype=torch.int64)), ["input_ids", "attention_mask"]
    with minilm_example().quiet():
        model = _without_cache(_model(kind))
        if way == "dynamo":
            dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
            torch.onnx.export(
                model, inputs, path, dynamo=True, dynamic_shapes=[dims, dims], input_names=names, output_names=["logits"],
                external_data=False, verbose=False,
            )  # fmt: skip
        else:
            axes = {name: {0: "batch", 1: "length"} for name in (*names, "logits")}
            torch.onnx.export(
                model, inputs, str(path), dynamo=False, dynamic_axes=axes, input_names=names, output_names=["logits"], opset_version=17
            )  # fmt: skip
    return path


def _model(kind: Kind) -> torch.nn.Module:
    import torch
    import transformers

    torch.manual_seed(0)
    model: torch.nn.Module
    if kind == "GPT2":
        sizes = {"n_embd": _WIDTH, "n_positions": _POSITIONS, "n_layer": LAYERS, "n_head": HEADS, "n_inner": UNITS}
        ends = {"bos_token_id": 0, "eos_token_id": 0}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=VOCABULARY, **sizes, **ends))
    else:
        sizes = {"hidden_size": _WIDTH, "max_position_embeddings": _POSITIONS, "num_hidden_layers": LAYERS}
        sizes |= {"num_attention_heads": HEADS, "ffn_dim": UNITS, "word_embed_proj_dim": _WIDTH}
        model = transformers.OPTForCausalLM(transformers.OPTConfig(vocab_size=VOCABULARY, **sizes))
    perturb(model, 0, False)
    return model.eval()


def _without_cache(model: torch.nn.Module) -> torch.nn.Module:
    import torch

    class Logits(torch.nn.Module):
        """The model with inputs by place, which keeps nothing for the next token."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            """Return the logits."""
            logits: torch.Tensor = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            return logits

    return Logits().eval()
