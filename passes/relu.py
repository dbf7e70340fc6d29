"""The pass `relu`: take ReLU for GELU, in a model that was trained so or can bear it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

import ffc
from ffc import Editor
from ffc.compiler.proof.rows import read
from ffc.graph.dialect.function import called
from ffc.graph.files import load_like
from ffc.settings.wanted import AGREEMENT, COSINE

KERNELS = ("BiasGelu", "FastGelu", "Gelu", "QuickGelu")
"""GELU among the operators of onnxruntime; some take a bias."""

ROWS = ".npz"
"""What the name of a file of rows ends with; anything else is a model."""

_ADVICE = "train the model with ReLU first, and name what came of it with relu{trained=...}"


@dataclass(frozen=True)
class Relu(ffc.Pass):
    """Replace every GELU by ReLU, which costs a fraction of it.

    1. GELU in any form that ``fuse`` recognises, exact or by its tanh approximation, alone or in a product's call.
    2. The kernels that onnxruntime's own optimizer writes for it, their bias kept.

    The outputs of a model that was not trained with ReLU move far, and the budget refuses it. One that was, but whose
    graph says GELU, is held against what `trained` names instead: a model with ReLU, on the inputs that contracts are
    checked on; or an ``.npz`` file of rows, an array per input and the ``logits`` that the trained model gives on them
    (or arrays named like the outputs).
    """

    name = "relu"
    needs = ("fuse",)
    before_rounding = True

    trained: Path | None = ffc.option(
        "what was trained with ReLU, to hold the result against: a model, or .npz rows with their logits",
        default=None,
        file=True,
    )
    cosine: float = ffc.option(
        "least mean cosine between output vectors and those they are held against", default=0.95, wanted=COSINE
    )
    agreement: float = ffc.option(
        "least share of rows whose largest output is the same", default=0.0, wanted=AGREEMENT
    )

    @property
    def contract(self) -> ffc.Budget:
        """Outputs may differ within the budget of the options, from those of what `trained` names if that is given."""
        if self.trained is None:
            return ffc.Budget(self.cosine, self.agreement, advice=_ADVICE)
        name, rows, model = self.trained.name, partial(_rows, self.trained), partial(_model, self.trained)
        against = ffc.KnownRows(rows, name) if self.trained.suffix == ROWS else ffc.ModelFrom(model, name)
        return ffc.Budget(self.cosine, self.agreement, against)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        editor = Editor(model)
        for node in list(model.graph):
            out = node.outputs[0]
            function = called(node)
            with_relu = None if function is None or function.activation != "Gelu" else function.activated("Relu")
            if with_relu is not None:
                editor.splice(with_relu.call, node.inputs, replaces=out)
            elif node.op_type == "Gelu" and not node.domain:
                editor.splice(lambda op, x: op.Relu(x), {"x": node.inputs[0]}, replaces=out)
            elif node.op_type in KERNELS and node.domain == "com.microsoft":
                _replace_kernel(node, editor)
            else:
                continue
            log.did("GELU", where=str(out.name))
        if not log.count:
            for layer in ffc.find_blocks(model).layers:
                if layer.ffn is not None:
                    activation = layer.ffn.activation or "none"
                    log.missed(f"feed-forward network of layer {layer.index}", f"its activation is {activation}")


def _model(trained: Path, model: ir.Model) -> ir.Model:
    """Return the model that `trained` names, its outputs in the order of those of `model`."""
    found = load_like(model, trained, "trained", "export both alike")
    by_name = {value.name: value for value in found.graph.outputs}
    found.graph.outputs[:] = [by_name[value.name] for value in model.graph.outputs]
    return found


def _rows(trained: Path, model: ir.Model) -> Mapping[str, np.ndarray]:
    """Return the rows that `trained` names, their outputs named as those of `model`."""
    arrays, outputs = dict(read(trained)), [str(value.name) for value in model.graph.outputs]
    if set(outputs) & arrays.keys():
        return arrays
    if "logits" not in arrays:
        raise ffc.InputError(
            f"trained={trained} has no array of outputs, 'logits' or one of {', '.join(outputs)}; "
            f"it has {', '.join(arrays)}"
        )
    if len(outputs) > 1:
        raise ffc.InputError(
            f"trained={trained} has 'logits', and the model gives {', '.join(outputs)}; "
            "name the array like the output that it is"
        )
    return {**arrays, outputs[0]: arrays["logits"]}


def _replace_kernel(node: ir.Node, editor: Editor) -> None:
    x, bias = [*node.inputs, None][:2]
    if bias is not None:
        x = editor.at(node, f"{node.outputs[0].name}.biased").Add(x, bias)
    editor.splice(lambda op, x: op.Relu(x), {"x": x}, replaces=node.outputs[0])
