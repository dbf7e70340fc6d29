"""What every command imports, for processes that are forked once it is there: see `tests.safety.warm`."""

from __future__ import annotations

import importlib

from ffc.cli import ffc
from tests.commands import leaves
from tests.safety import warm

__all__ = ["COMMANDS"]

COMMANDS = leaves.commands(ffc)
assert warm.LIBRARY

for _module in (
    "torch", "ffc.train.export", "ffc.train.learning.trainer", "ffc.train.models.pretrained", "ffc.train.pruning.plans",
    "ffc.train.pruning.importance", "ffc.ci.lock.check", "ffc.ci.reduce", "ffc.ci.page.page", "ffc.compiler.explain.table",
):  # fmt: skip
    importlib.import_module(_module)
