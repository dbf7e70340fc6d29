"""Make the encoders that tests run on: small random ones, exported as a user would, and the real MiniLM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from tests import checkout

if TYPE_CHECKING:
    import torch

Kind = Literal["bert", "roberta", "distilbert", "electra", "mpnet"]
Way = Literal["dynamo sdpa", "dynamo eager", "dynamo opset 23", "TorchScript sdpa", "TorchScript eager"]
"""Exporter and attention; transformers has no sdpa attention for MPNet, which gets its only one, eager."""

HIDDEN = 96
HEADS = 4
FFN = 200
EMBEDDING = 40
VOCABULARY = 120
POSITIONS = 66
LABELS = 3
_TWO = ("input_ids", "attention_mask")
INPUTS: dict[Kind, tuple[str, ...]] = {
    "bert": (*_TWO, "token_type_ids"),
    "roberta": _TWO,
    "distilbert": _TWO,
    "electra": (*_TWO, "token_type_ids"),
    "mpnet": _TWO,
}
MAX_LENGTH: dict[Kind, int] = {
    "bert": POSITIONS,
    "roberta": POSITIONS - 2,
    "distilbert": POSITIONS,
    "electra": POSITIONS,
    "mpnet": POSITIONS - 2,
}
"""Tokens a row: RoBERTa and MPNet count their positions from one past the id of padding, which is 1."""

_PREFIX: dict[Kind, str] = {
    "bert": "Bert",
    "roberta": "Roberta",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "mpnet": "MPNet",
}


@dataclass(frozen=True)
class Export:
    """A small random encoder, exported by default as `torch.onnx.export` does today.

    Attributes:
        kind: The architecture.
        layers: How many layers.
        seed: Seed of all weights.
        head: With a classifier of three labels, output `logits` `[batch, 3]`; otherwise `last_hidden_state`
            `[batch, length, 96]` and no pooler.
        zero_biases: Leave every bias zero, which makes the exporter merge those of one size into one initializer.
            Otherwise no two tensors are equal, and a lost or swapped bias shows in the output.
        way: Exporter and attention.
        opset: The opset it is written at, where that is not the exporter's choice.
        plain_norms: Leave norms as training begins, with weights of one; give `zero_biases` too and they do nothing more.
    """

    kind: Kind
    layers: int = 2
    seed: int = 0
    head: bool = False
    zero_biases: bool = False
    way: Way = "dynamo sdpa"
    opset: int | None = None
    plain_norms: bool = False

    @property
    def file_name(self) -> str:
        """A name that says which encoder it is."""
        flags = [*["head"] * self.head, *["zero"] * self.zero_biases, *["plain"] * self.plain_norms]
        flags += [f"opset{self.opset}"] * (self.opset is not None)
        return "-".join([self.kind, f"{self.layers}l", f"seed{self.seed}", *flags, *self.way.split()]) + ".onnx"

    def write(self, folder: Path) -> Path:
        """Export it, which takes about six seconds, and return the path of the file."""
        path, way = folder / self.file_name, self.way
        with minilm_example().quiet():
            attention = "eager" if "eager" in way or self.kind == "mpnet" else "sdpa"
            model = random_model(self.kind, self.layers, self.seed, self.head, attention)
            perturb(model, self.seed, self.zero_biases, self.plain_norms)
            write = to_onnx_by_tracing if way.startswith("TorchScript") else to_onnx
            opset = 23 if way == "dynamo opset 23" else self.opset
            options = {} if opset is None else {"opset_version": opset}
            write(model, INPUTS[self.kind], path, "logits" if self.head else "last_hidden_state", **options)
        return path


def minilm(folder: Path) -> Path:
    """Export the real MiniLM to `folder` by the example's own code and return the path of the file."""
    path: Path = minilm_example().export(folder / "minilm.onnx")
    return path


def minilm_example() -> ModuleType:
    """Return the example `examples/minilm/export.py`."""
    return checkout.load("minilm/export")


def random_model(kind: Kind, layers: int, seed: int, head: bool, attention: str = "sdpa") -> torch.nn.Module:
    """Return a random model in evaluation mode, the same for the same seed."""
    import torch
    import transformers

    if kind == "distilbert":
        own = {"dim": HIDDEN, "n_layers": layers, "n_heads": HEADS, "hidden_dim": FFN}
    else:
        own = {"hidden_size": HIDDEN, "num_hidden_layers": layers, "num_attention_heads": HEADS}
        own |= {"intermediate_size": FFN, **({"embedding_size": EMBEDDING} if kind == "electra" else {})}
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "num_labels": LABELS}
    torch.manual_seed(seed)
    prefix = _PREFIX[kind]
    config = getattr(transformers, f"{prefix}Config")(**sizes, **own, attn_implementation=attention)
    pooler = {} if kind in ("distilbert", "electra") else {"add_pooling_layer": False}
    model: torch.nn.Module
    if head:
        model = getattr(transformers, f"{prefix}ForSequenceClassification")(config)
    else:
        model = getattr(transformers, f"{prefix}Model")(config, **pooler)
    return model.eval()


def perturb(model: torch.nn.Module, seed: int, zero_biases: bool, plain_norms: bool = False) -> None:
    """Give every LayerNorm weight and every bias values of its own, drawn from `seed`; leave them plain if asked to.

    Weights are scaled up too: at transformers' initial 0.02 attention is uniform, and errors in it would hardly show.
    """
    import torch

    random = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if name.endswith("bias"):
                parameter.copy_(torch.zeros_like(noise) if zero_biases else 0.2 * noise)
            elif "norm" in name.lower():
                parameter.copy_(torch.ones_like(noise) if plain_norms else 1.0 + 0.2 * noise)
            elif "embeddings" not in name:
                parameter.mul_(5.0)


def to_onnx(model: torch.nn.Module, inputs: tuple[str, ...], path: Path, output: str, **options: Any) -> None:
    """Export with dynamic batch and length, all weights in the one file."""
    import torch

    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    torch.onnx.export(
        model,
        kwargs=_values(inputs),
        f=path,
        dynamic_shapes={name: dims for name in inputs},
        output_names=[output],
        dynamo=True,
        external_data=False,
        verbose=False,
        **options,
    )


def to_onnx_by_tracing(
    model: torch.nn.Module, inputs: tuple[str, ...], path: Path, output: str, opset_version: int = 18
) -> None:
    """Export through TorchScript, as torch did by default before 2.9."""
    import torch

    class Positional(torch.nn.Module):
        """The model with inputs by place, as tracing has them."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            """Return the first output."""
            result: torch.Tensor = self.model(**dict(zip(inputs, values, strict=True)), return_dict=True)[0]
            return result

    torch.onnx.export(
        Positional().eval(),
        tuple(_values(inputs).values()),
        str(path),
        dynamo=False,
        input_names=list(inputs),
        output_names=[output],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in inputs},
        opset_version=opset_version,
    )


def _values(inputs: tuple[str, ...]) -> dict[str, torch.Tensor]:
    import torch

    ids = torch.randint(5, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
    values = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return {name: values[name] for name in inputs}
