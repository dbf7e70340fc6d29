"""Folders in and out: a saved model with its tokenizer becomes a compiled one with what others look for."""

from __future__ import annotations

from ffc.folders.compiling import compile

__all__ = ["compile"]
