"""Model files: reading what is sound, refusing what is not, and writing so that no file is ever half written."""

from __future__ import annotations

from ffc.graph.files.loading import digest, is_pointer, load, load_like, parts, put_in_order, size, skeleton
from ffc.graph.files.saving import save

__all__ = ["digest", "is_pointer", "load", "load_like", "parts", "put_in_order", "save", "size", "skeleton"]
