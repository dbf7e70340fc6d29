"""Make the encoders that tests run on: small random ones, exported as a user would, and the real MiniLM."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Kind = Literal["bert", "roberta"]

HIDDEN = 96
HEADS = 4
FFN = 200
VOCABULARY = 120
POSITIONS = 66
LABELS = 3
INPUTS: dict[Kind, tuple[str, ...]] = {
    "bert": ("input_ids", "attention_mask", "token_type_ids"),
    "roberta": ("input_ids", "attention_mask"),
}
MAX_LENGTH: dict[Kind, int] = {"bert": POSITIONS, "roberta": POSITIONS - 2}
"""Tokens a row: RoBERTa counts its positions from one past the id of padding, which is 1."""

EXAMPLE = Path(__file__).parents[1] / "examples" / "minilm" / "export.py"


def small(
    kind: Kind, folder: Path, *, layers: int = 2, seed: int = 0, head: bool = False, zero_biases: bool = False
) -> Path:
    """Export a small random encoder by today's default `torch.onnx.export`; this takes about six seconds.

    Args:
        kind: The architecture.
        folder: Where the file goes, under a name that says which encoder it is.
        layers: How many layers.
        seed: Seed of all weights.
        head: With a classifier of three labels, output `logits` `[batch, 3]`; otherwise `last_hidden_state`
            `[batch, length, 96]` and no pooler.
        zero_biases: Leave every bias zero, which makes the exporter merge those of one size into one initializer.
            Otherwise no two tensors are equal, and a lost or swapped bias shows in the output.

    Returns:
        The path of the file.
    """
    example = minilm_example()
    words = [kind, f"{layers}l", f"seed{seed}", *["head"] * head, *["zero"] * zero_biases]
    path = folder / f"{'-'.join(words)}.onnx"
    with example.quiet():
        model = random_model(kind, layers, seed, head)
        perturb(model, seed, zero_biases)
        to_onnx(model, INPUTS[kind], path, "logits" if head else "last_hidden_state")
    return path


def minilm(folder: Path) -> Path:
    """Export the real MiniLM to `folder` by the example's own code and return the path of the file."""
    path: Path = minilm_example().export(folder / "minilm.onnx")
    return path


def minilm_example() -> ModuleType:
    """Load the example `examples/minilm/export.py` by its path, since it is no part of a package."""
    name = "ffc_example_minilm_export"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, EXAMPLE)
    assert spec and spec.loader, EXAMPLE
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def random_model(kind: Kind, layers: int, seed: int, head: bool) -> torch.nn.Module:
    """Return a random model in evaluation mode, the same for the same seed."""
    import torch
    import transformers

    sizes: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "intermediate_size": FFN,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "num_labels": LABELS,
    }
    torch.manual_seed(seed)
    prefix = {"bert": "Bert", "roberta": "Roberta"}[kind]
    config = getattr(transformers, f"{prefix}Config")(**sizes)
    model: torch.nn.Module
    if head:
        model = getattr(transformers, f"{prefix}ForSequenceClassification")(config)
    else:
        model = getattr(transformers, f"{prefix}Model")(config, add_pooling_layer=False)
    return model.eval()


def perturb(model: torch.nn.Module, seed: int, zero_biases: bool) -> None:
    """Give every LayerNorm weight and every bias values of its own, drawn from `seed`; leave biases zero if asked to.

    Weights are scaled up too: at transformers' initial 0.02 attention is uniform, and errors in it would hardly show.
    """
    import torch

    random = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if name.endswith("bias"):
                parameter.copy_(torch.zeros_like(noise) if zero_biases else 0.2 * noise)
            elif "LayerNorm" in name:
                parameter.copy_(1.0 + 0.2 * noise)
            elif "embeddings" not in name:
                parameter.mul_(5.0)


def to_onnx(model: torch.nn.Module, inputs: tuple[str, ...], path: Path, output: str) -> None:
    """Export with dynamic batch and length, all weights in the one file."""
    import torch

    ids = torch.randint(5, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
    values = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    torch.onnx.export(
        model,
        kwargs={name: values[name] for name in inputs},
        f=path,
        dynamic_shapes={name: dims for name in inputs},
        output_names=[output],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
