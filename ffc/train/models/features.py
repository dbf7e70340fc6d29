"""What models of sentence-transformers call what they make; their graphs call their outputs so, as optimum does."""

from __future__ import annotations

__all__ = ["SENTENCE", "TOKENS"]

SENTENCE, TOKENS = "sentence_embedding", "token_embeddings"
"""The vectors of sentences [B, width], and of tokens [B, S, width]."""
