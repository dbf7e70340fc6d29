"""The pass `dequantize`: take a model that another tool has quantised back to floating point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

import ffc
from ffc import Editor, rules
from ffc.compiler.proof.trial import Trial
from ffc.compiler.proof.verify import measure
from ffc.compiler.survey import name_of
from ffc.graph.blocks.prequantised import rounded_nodes
from ffc.graph.blocks.tables import table_of
from ffc.graph.files import load_like
from ffc.settings.wanted import AGREEMENT, COSINE

from . import constants, cuts, integers, kernels, pairs

DYNAMIC, CALIBRATED = 0.9, 0.4
"""Least mean cosine by default: where steps follow the numbers that are rounded, and where some were calibrated before.

What is beyond steps that were calibrated is cut off: such a model may be that far from itself without rounding, as
MiniLM is after onnxruntime's static quantisation.
"""

_FOLLOWING = {
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul",
    "GatherBlockQuantized", "MatMulBnb4", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits", "QAttention",
    "QEmbedLayerNormalization",
}  # fmt: skip
"""Operators that bring no calibrated steps with them; where they read numbers that have such, QuantizeLinear does."""


@dataclass(frozen=True)
class Dequantize(ffc.Pass):
    """Take the weights of a model that another tool has quantised back to floats, and let activations be unrounded.

    Every other pass then works on it as on any model: ``--passes dequantize,fuse,int8``.

    1. The operators of onnxruntime's tools (``MatMulIntegerToFloat``, ``QAttention``, ``QLinearAdd``,
       ``MatMulNBits`` and so on) are written as float operators, with what rounds around them.
    2. So are products of integers that the graph scales back itself (``DynamicQuantizeLinear``, ``MatMulInteger``,
       ``Cast``, ``Mul``).
    3. Pairs of QuantizeLinear and DequantizeLinear go. Where their steps begin at 0 they stood for a ReLU, which stays;
       where they go between whole numbers, as ReLU6 and Hardtanh do, for a Clip.
    4. Weights, biases and tables become floats on the grid that they were rounded to, which `int8` uses again.

    Outputs move, since activations are no longer rounded; the budget says by how much they may, against the model as it
    came. With `float32`, the model before it was quantised, the report says which of the two is nearer to that.
    """

    name = "dequantize"
    needs = ("opset",)
    before_rounding = True
    rules = pairs.RULES

    float32: Path | None = ffc.option(
        "the model before it was quantised, to compare with in the report", default=None, file=True
    )
    cosine: float | None = ffc.option(
        f"least mean cosine between output vectors before and after; by default {DYNAMIC}, and {CALIBRATED} where "
        "steps of activations were calibrated before",
        default=None,
        wanted=COSINE,
    )
    agreement: float = ffc.option(
        "least share of rows whose largest output stays the largest", default=0.0, wanted=AGREEMENT
    )

    @property
    def contract(self) -> ffc.Budget:
        """Outputs may move within the budget of the options."""
        cosine = CALIBRATED if self.cosine is None else self.cosine
        return ffc.Budget(cosine, self.agreement, advice="dequantize{cosine=...} allows more")

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        if next(rounded_nodes(model), None) is None:
            log.missed("the model", "nothing in it is quantised")
            return
        if self.cosine is None:
            calibrated = any(node.op_type not in _FOLLOWING for node in rounded_nodes(model))
            log.decide("cosine", CALIBRATED if calibrated else DYNAMIC)
        editor, tables = Editor(model), _tables(model)
        kernels.read_kernels(editor, log)
        integers.read_products(editor, log)
        constants.move_back(editor)
        own = cuts.cutting_nodes(editor)
        rules.apply(self.rules, model, log, editor)
        log.did("weights", constants.compute(editor))
        cuts.drop_needless(editor, log, own)
        if log.done.keys() & {"round", "round-above-zero", "round-unsigned"}:
            log.note("a function dropped before calibrated steps is known only where they end at 0 or whole numbers")
        if grown := len(_tables(model) - tables):
            log.note(f"{grown} embedding tables are floats now; int8 stores them as int8 again")
        _name_what_stays(model, log)
        if log.count and self.float32 is not None and log.trial is not None:
            log.note(_nearer(self.float32, model, log.trial))


def _tables(model: ir.Model) -> set[ir.Value | None]:
    """Return the embedding tables that are floats."""
    return {node.inputs[0] for node in model.graph if table_of(node) is not None}


def _name_what_stays(model: ir.Model, log: ffc.Log) -> None:
    """Say what is quantised still, and what that means for the passes that follow."""
    common.RemoveUnusedNodesPass()(model)
    staying = [name_of(node) for node in rounded_nodes(model)]
    for name in staying:
        if name not in {miss.where for miss in log.misses if not miss.depth}:
            log.missed(name, "it stands in no form that is read")
    if staying:
        log.note(f"{len(staying)} operators are quantised still, so that fuse and int8 leave the model as it is")


def _nearer(path: Path, model: ir.Model, trial: Trial) -> str:
    """Say which is nearer to the float32 model at `path`: the one that was given or `model`, which was made of it."""
    original = load_like(model, path, "float32", "give the model that was quantised")
    probes = trial.prover.probes
    own = [place for place, probe in enumerate(probes) if probe.required] or list(range(len(probes)))
    chosen, names = [probes[place] for place in own], [str(value.name) for value in model.graph.outputs]
    wanted = [{name: found[name] for name in names} for found in trial.prover.run(original, probes=chosen)]
    came, now = (
        measure(chosen, wanted, found, "").cosine
        for found in ([trial.outputs[place] for place in own], trial.prover.run(model, probes=chosen))
    )
    on = "the rows given" if chosen[0].required else "made inputs"
    nearer = "the model as it came is nearer" if came > now else "this one is nearer"
    return f"mean cosine with {path.name} on {on}: {came:.4f} as it came, {now:.4f} dequantised; {nearer}"
