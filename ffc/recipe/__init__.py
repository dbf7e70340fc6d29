"""Recipes: a compile kept in a TOML file, or as ``[tool.ffc]`` of a ``pyproject.toml``."""

from __future__ import annotations

from ffc.recipe.compiling import Recipe, changed, compile, find, load

__all__ = ["Recipe", "changed", "compile", "find", "load"]
