"""The defence against model files that are broken or hostile: these functions, and nothing else of this folder.

`parse` makes a message of the bytes of a file, `check` holds it to all that can be told without running the model, and
`check_demand` holds what running it would take to the limits. `check_tensors` also tells which other files it reads.
Messages name the file, whose path each takes.
"""

from __future__ import annotations

from ffc.graph.soundness.checks import check
from ffc.graph.soundness.demand import check_demand
from ffc.graph.soundness.parsing import parse
from ffc.graph.soundness.tensors import check_tensors

__all__ = ["check", "check_demand", "check_tensors", "parse"]
