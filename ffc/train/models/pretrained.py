"""Models as training starts from them, in float32, with the head that is wanted; and their tokenizers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from ffc.errors import CannotApplyError, InputError, UsageError
from ffc.train.models.blueprint import labels
from ffc.train.models.loading import load, loading, locate
from ffc.train.models.silence import silenced
from ffc.train.models.span_classifier import SpanClassifier

if TYPE_CHECKING:
    from ffc.train.tasks.base import Task

__all__ = [
    "base",
    "check_length",
    "classifier",
    "encoder",
    "filling",
    "fills_masks",
    "language_model",
    "longest",
    "read_logits",
    "same_tokens",
    "taken",
    "takes",
    "tokenizer",
]

_MAKES_TOKENS = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")
"""The parts of a tokenizer's file that decide which ids a text has."""

_CLASSIFIES = "ForSequenceClassification"
_FILLS = "ForMaskedLM"
_CLASSIFIERS = {_CLASSIFIES: AutoModelForSequenceClassification}
_FILLERS = {_FILLS: AutoModelForMaskedLM, "ForPreTraining": AutoModelForMaskedLM}
"""Models for pretraining have one more head, which is left out."""


def tokenizer(source: str | Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer that a model was trained with; it pads on the right.

    Raises:
        InputError: If there is none, or it is not a fast one, which alone tells where characters went.
        MissingError: If it is on the hub, which cannot be reached.
    """
    place = locate(source)
    with silenced(), loading(place, "tokenizer"):
        result = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    if not result.is_fast:
        raise InputError(f"the tokenizer of {source} has no tokenizer.json; save it as a fast tokenizer")
    result.padding_side = "right"  # heads read the first token of a row
    return cast(PreTrainedTokenizerFast, result)


def same_tokens(one: PreTrainedTokenizerFast, other: PreTrainedTokenizerFast) -> bool:
    """Return whether two tokenizers make the same ids of any text; how they pad and cut is set at run time."""
    first, second = (json.loads(each.backend_tokenizer.to_str()) for each in (one, other))
    return bool(all(first.get(name) == second.get(name) for name in _MAKES_TOKENS))


def classifier(source: str | Path, task: Task, *, seed: int = 0) -> nn.Module:
    """Return a model that classifies the rows of a task.

    A head that the source carries is kept where it is for the labels of the task; otherwise there is a fresh one.

    Args:
        source: As for `ffc.train.models.loading.locate`; also a folder of a pruned model, which keeps its shape.
        task: Its labels are written to the config, as is its name; with spans the model is a `SpanClassifier`.
        seed: Seed of the fresh head; torch's random state is left as it was.

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: If the source is missing or broken.
        MissingError: If it is on the hub, which cannot be reached.
    """
    found = load(source, _CLASSIFIERS).float()
    with silenced(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = found if _fits(found, task) else _classifying(base(found), task)
    config: Any = model.config
    config.ffc_task = task.name
    return model.eval()


def encoder(source: str | Path) -> nn.Module:
    """Return the transformer of a source without its head, in evaluation mode; arguments and errors as `classifier`."""
    return base(load(source, {}).float())


def language_model(source: str | Path) -> nn.Module:
    """Return a source with its head for masked language modelling, without a head where it carries none.

    Arguments and errors are those of `classifier`; the model is in evaluation mode.
    """
    found = load(source, _FILLERS).float()
    return found if fills_masks(found) else base(found)


def fills_masks(model: nn.Module) -> bool:
    """Return whether a model has a head for masked language modelling."""
    return type(model).__name__.endswith(_FILLS)


def filling(transformer: nn.Module, *, seed: int = 0) -> nn.Module:
    """Put a fresh head for masked language modelling on a transformer of any shape, which is built in, not copied.

    Args:
        transformer: A model without a head.
        seed: Seed of the head; torch's random state is left as it was.
    """
    with silenced(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _headed(transformer, AutoModelForMaskedLM)


def base(model: nn.Module) -> nn.Module:
    """Return the transformer inside a model: what its head, if any, sits on."""
    found: nn.Module = getattr(model, str(getattr(model, "base_model_prefix", "")), model)
    return found


def takes(model: nn.Module) -> tuple[str, ...]:
    """Return the inputs that a model makes use of, in order.

    Those are `input_ids` and `attention_mask`; `token_type_ids` if it embeds more than one type; `spans` if it has a
    head for them.
    """
    config: Any = model.config
    typed = getattr(config, "type_vocab_size", 0) > 1
    spans = isinstance(model, SpanClassifier)
    return ("input_ids", "attention_mask", *["token_type_ids"] * typed, *["spans"] * spans)


def taken(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the columns of a batch that a model makes use of, on its device."""
    device = next(model.parameters()).device
    return {name: batch[name].to(device) for name in takes(model) if name in batch}


def read_logits(model: nn.Module, output: object, *, tokens: bool = False) -> Tensor:
    """Return the logits of what a model put out.

    Args:
        model: The model.
        output: What it put out.
        tokens: Whether a model on tokens will do, with logits [batch, length, vocabulary].

    Raises:
        CannotApplyError: If there are no logits [batch, labels].
    """
    found = getattr(output, "logits", None)
    if isinstance(found, Tensor) and (found.ndim == 2 or (tokens and found.ndim == 3)):
        return found
    shape = f"logits {list(found.shape)}" if isinstance(found, Tensor) else "no logits"
    raise CannotApplyError(
        f"{type(model).__name__} gives {shape}, and logits [batch, labels] are needed; train a classifier first"
    )


def longest(model: nn.Module) -> int | None:
    """Return how many tokens a row may have, None where nothing tells.

    Where padding has a position, as in RoBERTa, tokens have those after it.
    """
    for name, module in model.named_modules():
        if name.endswith(("position_embeddings", "embed_positions")) and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


def check_length(tokens: int, *models: nn.Module) -> None:
    """Check that models can take rows of a length.

    Raises:
        UsageError: If not; torch would fail in the middle of a run.
    """
    for model in models:
        if (most := longest(model)) is not None and tokens > most:
            raise UsageError(
                f"rows of up to {tokens} tokens are more than the {most} that {type(model).__name__} takes; "
                f"set max_length to {most} or less"
            )


def _fits(model: nn.Module, task: Task) -> bool:
    """Return whether a model has a head for the labels and spans of a task."""
    spans = model.config.ffc_spans if isinstance(model, SpanClassifier) else 0
    headed = isinstance(model, SpanClassifier) or type(model).__name__.endswith(_CLASSIFIES)
    return bool(headed and labels(model) == task.labels and spans == task.spans)


def _classifying(transformer: nn.Module, task: Task) -> nn.Module:
    """Put a fresh head for a task on a transformer of any shape."""
    config: Any = transformer.config
    config.id2label = dict(enumerate(task.labels))
    config.label2id = {label: index for index, label in enumerate(task.labels)}
    config.problem_type = "single_label_classification"
    if task.spans:
        config.ffc_spans = task.spans
        return SpanClassifier(config, _with_pooler(transformer, None))
    return _headed(transformer, AutoModelForSequenceClassification)


def _headed(transformer: nn.Module, kind: Any) -> nn.Module:
    """Return a fresh model of a kind with a transformer of any shape in place of its own."""
    model = kind.from_config(transformer.config, dtype=next(transformer.parameters()).dtype)
    setattr(model, model.base_model_prefix, _with_pooler(transformer, getattr(model.base_model, "pooler", None)))
    model.config = transformer.config
    model.tie_weights()
    return cast(nn.Module, model)


def _with_pooler(transformer: nn.Module, wanted: nn.Module | None) -> nn.Module:
    """Give a transformer a pooler exactly where its head wants one, its own if it has one."""
    inner: Any = transformer
    if wanted is None and hasattr(inner, "pooler"):
        inner.pooler = None
    elif wanted is not None and inner.pooler is None:
        inner.pooler = wanted
    return transformer
