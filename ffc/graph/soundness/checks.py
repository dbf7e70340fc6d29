"""All that a model is refused for before anything is made of it, in the order in which one check relies on another."""

from __future__ import annotations

from pathlib import Path

import onnx

from ffc.graph.soundness.calls import check_calls
from ffc.graph.soundness.edges import check_graphs
from ffc.graph.soundness.names import check_names, strip_notes
from ffc.graph.soundness.tensors import check_tensors

__all__ = ["check"]


def check(proto: onnx.ModelProto, path: Path, *, data: bool = True) -> bool:
    """Check that a model holds together and stays within its folder; take out, in place, notes that a runtime obeys.

    Args:
        proto: The model as parsed.
        path: Its file, for messages; external data must lie in the same folder.
        data: Whether external data are looked for.

    Returns:
        Whether all nodes are in topological order. If not, they may be out of order or form a cycle.

    Raises:
        InputError: If calls, names, tensors or edges are unsound, or a limit is passed.
    """
    check_calls(proto, path)
    check_names(proto, path)
    strip_notes(proto)
    check_tensors(proto, path, data=data)
    return check_graphs(proto, path)
