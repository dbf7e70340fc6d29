"""Libraries that not every installation has, by what needs them: asked for before the work, not in the midst of it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from ffc.errors import MissingError

__all__ = ["CONVERSION", "EXPORT", "HUB", "PAGES", "PLOTS", "TEXTS", "TRAINING", "Need", "check"]


@dataclass(frozen=True)
class Need:
    """What some work needs.

    Attributes:
        words: What needs it, with the verb.
        modules: What it imports.
        install: What pip is to install.
        instead: What else can be done.
    """

    words: str
    modules: tuple[str, ...]
    install: str
    instead: str = ""


_TRAIN = "'fastformers-compiler[train]'"

TRAINING = Need("this needs", ("torch", "transformers", "accelerate"), _TRAIN)
TEXTS = Need("rows of text need", ("tokenizers",), "'fastformers-compiler[text]'")
PLOTS = Need("plots need", ("matplotlib",), _TRAIN)
HUB = Need(
    "data sets of the hub need", ("datasets",), "datasets",
    instead='or save the rows as .tsv, .csv or .jsonl and use the task "text"',
)  # fmt: skip
# What follows comes with ffc, unless it was installed without its dependencies.
EXPORT = Need("the export needs", ("onnxscript",), "onnxscript")
CONVERSION = Need("the conversion between opsets needs", ("onnxscript",), "onnxscript")
PAGES = Need("HTML pages need", ("jinja2", "markupsafe"), "jinja2")


def check(*needs: Need) -> None:
    """Refuse where something is not installed; nothing is imported.

    Raises:
        MissingError: If so; it says what lacks what, and what to install.
    """
    lacking = {need: [name for name in need.modules if not _is_there(name)] for need in needs}
    lacking = {need: names for need, names in lacking.items() if names}
    if lacking:
        found = ", ".join(f"{need.words} {', '.join(names)}" for need, names in lacking.items())
        pronoun = "it" if sum(map(len, lacking.values())) == 1 else "them"
        sources = " ".join(dict.fromkeys(need.install for need in lacking))
        instead = "".join(f", {need.instead}" for need in lacking if need.instead)
        name = next(iter(lacking.values()))[0]
        cause = ModuleNotFoundError(f"No module named '{name}'", name=name)
        raise MissingError(f"{found}; install {pronoun} with pip install {sources}{instead}") from cause


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # it is imported, and does not say where from
        return True
