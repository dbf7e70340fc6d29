"""A pass with a fault in it, for `reduce_fault.py` to find."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

import ffc


@dataclass(frozen=True)
class DropBias(ffc.Pass):
    """Let feed-forward layers whose bias is zero share one; of a bias it looks at the first number alone."""

    name = "drop-bias"
    needs = ("fuse",)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        editor = ffc.Editor(model)
        for node in model.graph:
            bias = ffc.constant(node.inputs[2]) if ffc.called(node) is ffc.ops.LinearGelu else None
            if bias is not None and not bias[0]:
                editor.replace_input(node, 2, editor.constant(np.zeros_like(bias), "no_bias"))
                log.did("bias")
