"""A head that classifies spans of tokens, such as the two uses of one word that WiC compares."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput

from ffc.errors import InputError

__all__ = ["SpanClassifier", "bare_encoder", "features", "pool"]


class SpanClassifier(nn.Module):
    """An encoder and a linear classifier over its first token and the means of some spans.

    Attributes:
        config: The encoder's configuration; `ffc_spans` is the number of spans a row, `num_labels` that of labels.
        encoder: The transformer, without a pooler.
        dropout: Applied to the features while training.
        classifier: Linear from the features to the labels.
    """

    base_model_prefix = "encoder"

    def __init__(self, config: Any, encoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.dropout = nn.Dropout(_dropout(config))
        self.classifier = nn.Linear((1 + config.ffc_spans) * config.hidden_size, len(config.id2label))
        nn.init.normal_(self.classifier.weight, std=config.initializer_range)
        nn.init.zeros_(self.classifier.bias)

    @classmethod
    def from_config(cls, config: PreTrainedConfig) -> SpanClassifier:
        """Return a new model of the shape that `config` states, its weights drawn from torch's random state."""
        return cls(config, bare_encoder(config))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        spans: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: Any,
    ) -> SequenceClassifierOutput:
        """Classify rows of tokens.

        Args:
            input_ids: int64 [B, S].
            attention_mask: [B, S], 1 at real tokens.
            token_type_ids: int64 [B, S]; left out where the encoder knows no types.
            spans: int64 [B, n, 2], token (start, end exclusive) of each span; an empty one counts as zeros.
            labels: int64 [B]; with them the output has the cross-entropy.
            options: What else the encoder takes, such as `output_hidden_states`.

        Returns:
            Logits [B, labels].

        Raises:
            InputError: If the rows have no spans, or not as many as the head was made for.
        """
        wanted = self.config.ffc_spans
        if spans is None or tuple(spans.shape[1:]) != (wanted, 2):
            found = "none" if spans is None else f"an array {list(spans.shape)}"
            raise InputError(f"the model takes spans [rows, {wanted}, 2], the rows have {found}; give rows of its task")
        if token_type_ids is not None and "token_type_ids" in inspect.signature(self.encoder.forward).parameters:
            options["token_type_ids"] = token_type_ids
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **options)
        hidden = output.last_hidden_state
        logits = self.classifier(self.dropout(features(hidden[:, 0], pool(hidden, spans))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )


def pool(hidden: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """Return the mean of the hidden states in each span.

    Args:
        hidden: [B, S, W].
        spans: int64 [B, n, 2], start and end exclusive.

    Returns:
        [B, n, W]; zeros for a span that holds no token.
    """
    places = torch.arange(hidden.shape[1], device=hidden.device)
    inside = ((places >= spans[..., :1]) & (places < spans[..., 1:])).to(hidden.dtype)
    return inside @ hidden / inside.sum(dim=-1, keepdim=True).clamp(min=1)


def features(first: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Return what the classifier sees, [B, (1 + n) W]: the first token [B, W] and the mean of each span [B, n, W]."""
    return torch.cat([first, means.flatten(start_dim=1)], dim=-1)


def bare_encoder(config: PreTrainedConfig) -> nn.Module:
    """Return a new transformer without a pooler; some architectures never have one."""
    auto: Any = AutoModel
    kinds: Any = MODEL_MAPPING
    takes_pooler = "add_pooling_layer" in inspect.signature(kinds[type(config)]).parameters
    model: nn.Module = auto.from_config(config, **({"add_pooling_layer": False} if takes_pooler else {}))
    return model


def _dropout(config: PreTrainedConfig) -> float:
    """Return the share that the architecture's own classification head drops."""
    names = ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob")
    return float(next(value for name in names if (value := getattr(config, name, None)) is not None))
