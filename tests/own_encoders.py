"""Make the encoders that people write of ``torch.nn``: small, random, exported as a user would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.encoders import minilm_example, perturb

if TYPE_CHECKING:
    import torch

WIDTH, HEADS, UNITS, LAYERS, VOCABULARY, LENGTH = 16, 4, 24, 2, 40, 9


@dataclass(frozen=True)
class Own:
    """A ``TransformerEncoder``, or one ``MultiheadAttention`` with a residual connection and a norm.

    Attributes:
        way: The exporter. TorchScript writes down the length that it sees, so that the batch alone varies.
        batch_first: As torch calls it; otherwise the encoder is given [length, batch, width].
        norm_first: As torch calls it; None for one ``MultiheadAttention``.
        masked: Whether a second input, bool [batch, length], is true where tokens are hidden.
    """

    way: Literal["dynamo", "TorchScript"]
    batch_first: bool
    norm_first: bool | None
    masked: bool

    def write(self, path: Path) -> Path:
        """Export it, which takes five seconds by dynamo, and return the path; inputs ``ids``, ``hidden``, output ``y``."""
        import torch

        inputs = {"ids": torch.zeros(2, LENGTH, dtype=torch.int64), "hidden": torch.zeros(2, LENGTH, dtype=torch.bool)}
        inputs["hidden"][0, 7:] = True
        names = list(inputs)[: 1 + self.masked]
        values = tuple(inputs[name] for name in names)
        with minilm_example().quiet():
            if self.way == "dynamo":
                dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
                torch.onnx.export(
                    self._model(), values, path, dynamo=True, dynamic_shapes=[dims] * len(names), input_names=names,
                    output_names=["y"], external_data=False, verbose=False,
                )  # fmt: skip
            else:
                axes = {name: {0: "batch"} for name in [*names, "y"]}
                torch.onnx.export(
                    self._model(), values, str(path), dynamo=False, dynamic_axes=axes, input_names=names, output_names=["y"],
                    opset_version=17,
                )  # fmt: skip
        return path

    def _model(self) -> torch.nn.Module:
        import torch
        from torch import nn

        own = self

        class Model(nn.Module):
            """Words, then the encoder."""

            def __init__(self) -> None:
                super().__init__()
                self.embeddings = nn.Embedding(VOCABULARY, WIDTH)
                self.norm = nn.LayerNorm(WIDTH)
                if own.norm_first is None:
                    self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=own.batch_first)
                else:
                    layer = nn.TransformerEncoderLayer(
                        WIDTH, HEADS, UNITS, activation="gelu", batch_first=own.batch_first, norm_first=own.norm_first
                    )
                    self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

            def forward(self, ids: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
                x = self.embeddings(ids)
                x = x if own.batch_first else x.transpose(0, 1)
                if own.norm_first is None:
                    y = self.norm(x + self.attention(x, x, x, key_padding_mask=hidden, need_weights=False)[0])
                else:
                    y = self.norm(self.encoder(x, src_key_padding_mask=hidden))
                found: torch.Tensor = y if own.batch_first else y.transpose(0, 1)
                return found

        torch.manual_seed(0)
        model = Model()
        perturb(model, 0, False)
        return model.eval()
