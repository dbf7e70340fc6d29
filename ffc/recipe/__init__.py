"""Recipes: what to compile and how, or a whole study from data to a compiled model, as TOML."""

from __future__ import annotations

from ffc.recipe.compiling import Recipe, compile, find, for_model, load

__all__ = ["Recipe", "compile", "find", "for_model", "load"]
