"""What a model gives, read off what it puts out, and what it is for, by the class of its head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ffc.errors import CannotApplyError, one_line
from ffc.train.models.features import SENTENCE, TOKENS
from ffc.train.models.sentences import SentenceModel

__all__ = ["classifies", "does", "outputs"]

# In this order: what a head gives says more than what is below it.
_KNOWN: tuple[tuple[str, ...], ...] = (
    (SENTENCE, TOKENS),  # fastembed takes the first output, transformers.js looks for the second by its name
    ("start_logits", "end_logits"),
    ("logits",),
    ("last_hidden_state",),
)

_CACHES = {"cache", "past_key_values"}
"""What a decoder keeps of what it has read, by newer and older names."""

_CLASSIFIES = {"ForSequenceClassification": "text-classification", "ForTokenClassification": "token-classification"}
_TASKS = _CLASSIFIES | {
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    SentenceModel.__name__: "sentence-similarity",
    "Model": "feature-extraction",
}
"""What the hub calls the use of a model, by how the name of its class ends."""


def outputs(model: nn.Module, feeds: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the outputs that the graph of a model has, the first ones that it puts out.

    These are `sentence_embedding` [batch, width] and `token_embeddings` [batch, length, width] of a `SentenceModel`;
    `start_logits` and `end_logits` [batch, length] where answers are found in a text; `logits`, by row or by token, of
    any other head; and `last_hidden_state` [batch, length, width] where there is none.

    Args:
        model: The model, in evaluation mode.
        feeds: Inputs that it runs on.

    Raises:
        CannotApplyError: If it puts out something else, or does not run on such inputs.
    """
    try:
        with torch.no_grad():
            found = list(model(**feeds))
    except Exception as error:  # a model may want anything, such as several choices a row
        why, given = one_line(str(error) or repr(error), 200), " and ".join(feeds)
        raise CannotApplyError(
            f"a {type(model).__name__} does not run on rows of {given}: {why}; name a model that does"
        ) from error
    if _CACHES.intersection(found):
        raise CannotApplyError(
            f"a {type(model).__name__} puts out a cache of what it has read, which is not exported; set use_cache to "
            "false in its config.json"
        )
    for names in _KNOWN:
        if tuple(found[: len(names)]) == names:
            return list(names)
    raise CannotApplyError(
        f"a {type(model).__name__} puts out {', '.join(found)}, and no use of that is known; name a model that "
        "classifies, finds answers, fills masks or embeds"
    )


def does(model: nn.Module) -> str:
    """Return what the hub calls the use of a model, or "" where its class does not tell."""
    return next((task for end, task in _TASKS.items() if type(model).__name__.endswith(end)), "")


def classifies(model: nn.Module) -> bool:
    """Return whether a model has labels, of rows or of tokens."""
    return does(model) in _CLASSIFIES.values()
