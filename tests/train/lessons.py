"""What tests of training share: classifiers to teach, teachers of other shapes, rows that can be learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from ffc.pruning import LayerPlan, Plan
from ffc.settings.losses import Losses
from ffc.train.encoding import Collator, Rows
from ffc.train.models.slicing import apply
from ffc.train.tasks.base import Example
from tests.encoders import FFN, HEADS, LABELS, VOCABULARY, Kind, perturb, random_model

LENGTHS = (9, 4, 12, 7, 5, 3, 8, 6)
EVERYTHING = Losses(labels=1.0, logits=0.7, hidden=0.5, attention=0.3, relations=0.9, temperature=2.0, relation_heads=5)


def collator(length: int | None = None) -> Collator:
    """Return what pads to `length`, or to the longest row."""
    tokenizer: Any = SimpleNamespace(pad_token_id=1, pad_token_type_id=0, padding_side="right")
    return Collator(tokenizer, length)


def encoded(lengths: Sequence[int] = LENGTHS, *, seed: int = 0, labels: bool = True) -> Rows:
    """Return rows of random ids, whose label can be learned: it is that of the second token."""
    random = np.random.default_rng(seed)
    rows = []
    for index, length in enumerate(lengths):
        ids = random.integers(5, VOCABULARY, length)
        row: dict[str, Any] = {"input_ids": ids.tolist(), "attention_mask": [1] * length, "index": index}
        row |= {"token_type_ids": random.integers(0, 2, length).tolist()}
        rows.append(row | ({"labels": int(ids[1]) % LABELS} if labels else {}))
    return Rows(rows, [Example("text")] * len(rows), 64)


def classifier(kind: Kind = "bert", layers: int = 2, *, seed: int = 0, dropout: bool = False) -> nn.Module:
    """Return a random classifier; without dropout in float64, where rounding hides nothing."""
    model = random_model(kind, layers, seed, True, "eager" if kind == "mpnet" else "sdpa")
    perturb(model, seed, zero_biases=False)
    if dropout:
        return model
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.double()


def narrow(seed: int = 0, *, vocabulary: int = VOCABULARY, labels: int = LABELS) -> nn.Module:
    """Return a BERT of another width, number of heads and head size than those of `classifier`."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 42, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 50}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=vocabulary, max_position_embeddings=66, num_labels=labels, **sizes, **dropout)
    model = BertForSequenceClassification(config)
    perturb(model, seed, zero_biases=False)
    return model.double()


def pruned(seed: int = 1) -> nn.Module:
    """Return a classifier of uneven layers, whose 48 and 72 columns of q are no multiple of 5."""
    plans = (LayerPlan(heads=(0, 2), units=tuple(range(50)), of_heads=HEADS, of_units=FFN),)
    plans += (LayerPlan(heads=(0, 1, 3), units=tuple(range(9)), of_heads=HEADS, of_units=FFN),)
    return apply(classifier(seed=seed), Plan(layers=plans))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)
