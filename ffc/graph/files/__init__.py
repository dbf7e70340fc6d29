"""Model files: reading what is sound, refusing what is not, and writing so that no file is ever half written."""

from __future__ import annotations

from ffc.graph.files.loading import clone, digest, is_pointer, load, load_like, parts, put_in_order, size, skeleton
from ffc.graph.files.saving import save
from ffc.graph.files.sources import ModelLike, in_memory, name_of, path_of

__all__ = [
    "ModelLike", "clone", "digest", "in_memory", "is_pointer", "load", "load_like", "name_of", "parts", "path_of",
    "put_in_order", "save", "size", "skeleton",
]  # fmt: skip
