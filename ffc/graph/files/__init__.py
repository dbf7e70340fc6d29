"""Model files: reading what is sound, refusing what is not, and writing so that no file is ever half written."""

from __future__ import annotations

from ffc.graph.files.loading import digest, load, parts, save, size, skeleton

__all__ = ["digest", "load", "parts", "save", "size", "skeleton"]
