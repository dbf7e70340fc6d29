"""The defence against model files that are broken or hostile: these functions, and nothing else of this folder.

`parse` makes a message of the bytes of a file, `check` holds it to all that can be told without running the model, and
`check_demand` holds what running it would take to the limits. `check_tensors` also tells which other files it reads.
`path` is the file throughout, for messages, or what to call a model in memory; external data must lie in its folder,
where `data_file` finds them.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from ffc.graph.soundness.calls import check_calls
from ffc.graph.soundness.demand import check_demand
from ffc.graph.soundness.edges import check_graphs
from ffc.graph.soundness.names import check_names, strip_notes
from ffc.graph.soundness.parsing import parse
from ffc.graph.soundness.tensors import check_tensors, data_file

__all__ = ["check", "check_demand", "check_tensors", "data_file", "parse"]


def check(proto: onnx.ModelProto, path: Path, *, data: bool = True, alone: bool = False) -> bool:
    """Check that a model holds together and stays within its folder; take out, in place, notes that a runtime obeys.

    One check relies on those before it. `data` says whether external data are looked for, `alone` that there is no
    file, and so no folder in which they could be.

    Returns:
        Whether all nodes are in topological order. If not, they may be out of order or form a cycle.

    Raises:
        InputError: If calls, names, tensors or edges are unsound, or a limit is passed.
    """
    check_calls(proto, path)
    check_names(proto, path)
    strip_notes(proto)
    check_tensors(proto, path, data=data, alone=alone)
    return check_graphs(proto, path)
