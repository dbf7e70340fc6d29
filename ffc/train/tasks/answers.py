"""Free answers as they are compared with each other."""

from __future__ import annotations

import re
import string

__all__ = ["normalise"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise(text: str) -> str:
    """Return `text` in lower case, without ASCII punctuation, articles and spare blanks.

    What SQuAD's metric does (Rajpurkar et al. 2016, arXiv 1606.05250), and ReCoRD's after it.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
