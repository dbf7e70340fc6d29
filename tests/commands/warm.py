"""What commands import that need no torch, for processes that are forked once it is there: see `tests.safety.warm`."""

from __future__ import annotations

import importlib

from ffc.cli import ffc
from tests.commands import leaves
from tests.safety import warm

__all__ = ["COMMANDS"]

COMMANDS = leaves.commands(ffc)
assert warm.LIBRARY

for _module in (
    "ffc.ci.lock.check", "ffc.ci.page.page", "ffc.ci.reports.terminal", "ffc.ci.reports.writing", "ffc.compiler.explain.table",
    "ffc.pruning.forward", "ffc.recipe", "ffc.study.report.table", "rich.progress",
):  # fmt: skip
    importlib.import_module(_module)
