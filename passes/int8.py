"""Store the weights of products as int8 and quantise their input on the fly."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

import ffc
from ffc import Editor, constant
from ffc.compiler import survey
from ffc.compiler.proof.contracts import Verdict
from ffc.compiler.proof.trial import Trial
from ffc.compiler.targets import processor
from ffc.errors import nearest
from ffc.graph.blocks.prequantised import reason_to_leave
from ffc.graph.blocks.products import Products
from ffc.graph.blocks.structure import ROLES, Blocks, Product
from ffc.graph.blocks.tables import lookups
from ffc.graph.dialect import ops, quantise
from ffc.graph.dialect.function import Function, called, quantises
from ffc.settings.wanted import AGREEMENT, COSINE

AUTO = "auto"
"""The word in `skip` that leaves the choice to a measurement."""

RANKING_ROWS = 16
"""How many of the user's rows tell what a product costs: a model runs on them once for every product."""

SPARE = 0.1
"""Share of the budget that `skip=auto` leaves unspent, since kernels round other than the functions they stand for."""

_ADVICE = "int8{skip=auto} with --data rows.npz leaves in fp32 what costs most, and int8{cosine=...} allows more"

SMALL_TABLES = 1 << 16
"""Bytes of the tables of one look-up below which int8 saves nothing that counts, and still costs an operator or two."""

MOST_INPUTS = 2**31 // (255 * 127)
"""Sums are int32."""

OTHER_PRODUCTS = {
    "": ("Conv", "Einsum", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"),
    "com.microsoft": (
        "Attention", "DynamicQuantizeMatMul", "FusedGemm", "FusedMatMul", "MatMulIntegerToFloat", "MatMulNBits",
        "QAttention", "QGemm",
    ),
}  # fmt: skip
"""Operators that multiply by a weight and are looked at only to say why they are left."""


@dataclass(frozen=True)
class Int8(ffc.Pass):
    """Turn products with a constant weight into int8 products.

    1. Weights are stored as int8, symmetric, with one scale per output column. Columns that lie on steps already, since
       another tool quantised the model once, keep these where they fit.
    2. Their input is quantised when the model runs, with one scale for the whole tensor (``DynamicQuantizeLinear``).
       For the roles in `rows` each row (token) is divided by its largest magnitude first: a few operators more, and
       far more accurate where tokens differ as much as they do before the second product of a feed-forward network.
    3. Products of two activations, Q·K and probabilities·V, stay in fp32, and so do norms and activations.
    4. Embedding tables are stored as int8 too, with one scale per row, where they are large enough to count.
    5. x86 without VNNI adds the products of two neighbouring weights in 16 bits, which may overflow without a word.
       Where this processor does, the scales of such weights are made as much coarser as rules that out; `range` says
       so for a model that is compiled on one machine and served on another.
    6. ``skip=auto`` measures on the rows of ``--data`` what each product costs alone, and leaves as many of the most
       costly in fp32 as the budget asks for.

    Works on fused and on plain products. The report says which products were taken and which were not, and why.
    Outputs move; the budget says by how much they may.
    """

    name = "int8"
    needs = ("opset",)
    rounds = True

    skip: tuple[str, ...] = ffc.option(
        f"products to leave in fp32, by role ({', '.join(ROLES)}) or by name; auto leaves those that cost the most "
        "accuracy on the rows of --data until the budget holds",
        default=(),
    )
    rows: tuple[str, ...] = ffc.option(
        "roles whose input is scaled row by row before it is quantised", default=("ffn_out",)
    )
    range: Literal["auto", "full", "narrow"] = ffc.option(
        "of weights: full is ±127, which overflows silently on processors without VNNI; narrow is ±64 to ±127, by "
        "column, as far as nothing can overflow; auto is what suits this machine, so say narrow when compiling for "
        "an older one",
        default="auto",
    )
    embeddings: bool | Literal["auto"] = ffc.option(
        f"store embedding tables as int8 too: auto those of {SMALL_TABLES >> 10} KiB or more, unless skip=auto finds "
        "that the budget does not hold with them; true all, false none",
        default=AUTO,
    )
    cosine: float = ffc.option(
        "least mean cosine between output vectors before and after", default=0.95, wanted=COSINE
    )
    agreement: float = ffc.option(
        "least share of rows whose largest output stays the largest", default=0.0, wanted=AGREEMENT
    )

    def __post_init__(self) -> None:
        """Refuse roles that there are not."""
        for role in self.rows:
            if role not in ROLES:
                raise ffc.UsageError(f"int8: rows={role} names no role{nearest(role, ROLES)}")

    @property
    def contract(self) -> ffc.Budget:
        """Outputs may move within the budget of the options."""
        return ffc.Budget(self.cosine, self.agreement, advice=_ADVICE)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        reason = reason_to_leave(model)
        if reason:
            log.missed("the model", reason)
            return
        blocks = ffc.find_blocks(model)
        self._check_names(blocks.products)
        reasons = {product.out: self._reason_to_leave(product) for product in blocks.products}
        taken = [product for product in blocks.products if not reasons[product.out]]
        narrow = bool(taken) and self._narrows(log)
        stored = {product.out: _store(product, narrow, product.role in self.rows) for product in taken}
        tables = self.embeddings is not False
        if AUTO in self.skip:
            left, tables = _Search(self, model, blocks, stored, _trial(log), tables).run(log)
            names = [product.name for product in blocks.products if product.out in left]
            log.decide("skip", (*(word for word in self.skip if word != AUTO), *names))
            if self.embeddings == AUTO and not tables:
                log.decide("embeddings", False)
            reasons |= left
        if kept := sum(each.kept for each in stored.values()):
            log.note(f"weights were on steps already: {kept / len(stored):.0%} of their columns keep them, exactly")
        for name, reason in _unfit(model, blocks.products):
            log.missed(f"other {name}", reason)
        editor = Editor(model)
        for product in blocks.products:
            if reasons[product.out]:
                log.missed(f"{product.role} {product.name}", reasons[product.out])
                continue
            log.did(product.role, where=product.name)  # before the name goes to what takes its place
            _write(product, stored[product.out], editor)
        if tables:
            log.did("embedding tables", _quantise_embeddings(editor, self._least_table, log))
        attentions = sum(layer.attention is not None for layer in blocks.layers)
        if attentions:
            log.note(f"Q·K and probabilities·V of {attentions} attentions stay fp32: products of two activations")

    @property
    def _least_table(self) -> int:
        """How many bytes of tables a look-up must have to be taken."""
        return 0 if self.embeddings is True else SMALL_TABLES

    def survey(self, tried: ffc.Tried) -> ffc.Survey:
        """See `ffc.Pass.survey`: every product, and what else was named."""
        blocks = ffc.find_blocks(tried.before)
        layers = {product.name: layer.index for layer in blocks.layers for product in layer.products()}
        said = {} if tried.refused else {(finding.kind, finding.name): finding for finding in survey.said(tried.log)}
        found = []
        for product in blocks.products:
            told = said.pop((product.role, product.name), None)
            taken = told is not None and told.taken
            why = "int8" if taken else told.why if told else "the pass does not say"
            found.append(survey.of_product(product, layers.get(product.name), taken, why))
        return ffc.Survey([*found, *said.values()], tried.refused, listed=True)

    def _check_names(self, products: tuple[Product, ...]) -> None:
        known = {product.name for product in products}
        words = {*ROLES, AUTO}
        for name in self.skip:
            if name not in words and name not in known:
                near = nearest(name, words) if len(known) > 20 else nearest(name, words | known)
                raise ffc.UsageError(f"skip={name} names no role and no product of this model{near}")

    def _reason_to_leave(self, product: Product) -> str:
        if product.role in self.skip or product.name in self.skip:
            return "left in fp32 as asked (skip)"
        weight = constant(product.weight)
        assert weight is not None
        if weight.dtype != np.float32:
            return f"its weight is {weight.dtype}, not float32"
        if not np.isfinite(weight).all():
            return "its weight is not finite"
        if product.sizes[0] > MOST_INPUTS:
            return f"it sums {product.sizes[0]} products, more than int32 holds"
        if _rounded(product, product.role in self.rows) is None:
            return f"{product.node.op_type} has no form in int8"
        return ""

    def _narrows(self, log: ffc.Log) -> bool:
        """Whether ranges of weights are narrowed; say why, and what would be otherwise."""
        if self.range == "narrow":
            log.note("the range of weights is narrowed as asked, so that nothing overflows on any processor")
            return True
        overflows = processor.overflows()
        if self.range == AUTO:
            log.decide("range", "narrow" if overflows else "full")
        if not overflows:
            log.note(
                "weights keep their full range, which overflows on processors without VNNI (range=narrow does not)"
            )
            return False
        trouble = "this processor, without VNNI, adds the products of two int8 weights in 16 bits, which may overflow"
        if self.range == "full":
            log.note(f"{trouble}; range=full keeps the full range all the same")
            return False
        log.note(f"{trouble}: weights are narrowed so that none does (range=full keeps them, to serve where VNNI is)")
        return True


@dataclass(frozen=True, eq=False)
class _Stored:
    """A product as int8.

    Attributes:
        function: The function that computes it.
        weight: int8 [I, O].
        scale: float32 [O].
        bias: float32 [O].
        kept: Share of columns that were on steps already and keep them, as `dequantize` leaves weights.
    """

    function: Function
    weight: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    kept: float


def _rounded(product: Product, by_row: bool) -> Function | None:
    return (called(product.node) or ops.Linear).rounded("int8", by_row=by_row)


def _store(product: Product, narrow: bool, by_row: bool) -> _Stored:
    matrix = np.ascontiguousarray(product.matrix())
    step = quantise.steps(matrix)
    weight, scale = quantise.columns(matrix, narrow=narrow, step=step)
    bias = product.vector()
    bias = np.zeros(len(scale), np.float32) if bias is None else np.broadcast_to(bias, scale.shape)
    function = _rounded(product, by_row)
    assert function is not None
    return _Stored(function, weight, scale, bias, kept=float((scale == step).mean()))


def _write(product: Product, stored: _Stored, editor: Editor) -> None:
    function, attributes = stored.function, product.node.attributes if called(product.node) else {}
    scale = function.scales[function.weight]
    given = {function.weight: stored.weight, scale: stored.scale, function.bias: stored.bias}
    inputs = [given.get(tensor, product.x) for tensor in function.tensors]
    editor.splice(function.call, inputs, attributes, replaces=product.out)


def _trial(log: ffc.Log) -> Trial:
    if log.trial is None or not log.trial.rows:
        raise ffc.UsageError("skip=auto measures products on rows of your own; give them with --data rows.npz")
    return log.trial


@dataclass(frozen=True, eq=False)
class _Search:
    """The search of ``skip=auto`` for what is to stay fp32.

    Attributes:
        options: Those of the pass.
        model: The model; it is not changed.
        blocks: Its blocks.
        stored: The products that may be int8.
        trial: What measures.
        tables: Whether embedding tables are to be int8.
    """

    options: Int8
    model: ir.Model
    blocks: Blocks
    stored: Mapping[ir.Value, _Stored]
    trial: Trial
    tables: bool

    def run(self, log: ffc.Log) -> tuple[dict[ir.Value, str], bool]:
        """Return, by the value it computes, why each product that costs too much is left; and whether tables are int8.

        Raises:
            GateError: If the budget does not hold with the tables alone, which were asked for.
        """
        if self.tables and not self._holds(alone := self._measure([])):
            if self.options.embeddings is True:
                raise ffc.GateError(
                    f"embedding tables in int8 alone bring the mean cosine to {alone.cosine:.4f}, too near to the "
                    f"budget of {self.options.contract}; leave out embeddings=true"
                )
            why = f"left in fp32 by skip=auto: alone they bring the mean cosine to {alone.cosine:.4f}"
            log.missed("embedding tables", why)
            return replace(self, tables=False).run(log)
        costs = {out: 1 - self._measure([out], RANKING_ROWS).cosine for out in self.stored}
        ranked = sorted(self.stored, key=lambda out: -costs[out])
        number, verdict = self._fewest(ranked)
        left = ranked[:number]
        log.note(
            f"skip=auto leaves {number} of {len(ranked)} products in fp32; mean cosine {verdict.cosine:.4f} on "
            f"{verdict.probes} probes, a tenth of the budget of {self.options.contract} being kept in reserve"
        )
        rows = min(RANKING_ROWS, self.trial.rows)
        log.note(f"what each product costs alone in int8, as 1 - mean cosine on {rows} rows, most costly first:")
        for product in sorted((p for p in self.blocks.products if p.out in costs), key=lambda p: -costs[p.out]):
            log.note(f"{costs[product.out]:.1e} {self._place(product)}{' (fp32)' if product.out in left else ''}")
        reasons = {out: f"left in fp32 by skip=auto: it alone costs {costs[out]:.1e} of cosine" for out in left}
        return reasons, self.tables

    def _fewest(self, ranked: list[ir.Value]) -> tuple[int, Verdict]:
        """Return how many of the most costly must stay fp32 for the budget to hold, and what is measured then."""
        verdict = self._measure(ranked)
        if self._holds(verdict):
            return 0, verdict
        enough, best = len(ranked), self._measure([])
        too_few = 0
        while enough - too_few > 1:
            number = (too_few + enough) // 2
            verdict = self._measure(ranked[number:])
            if self._holds(verdict):
                enough, best = number, verdict
            else:
                too_few = number
        return enough, best

    def _measure(self, chosen: Collection[ir.Value], rows: int | None = None) -> Verdict:
        """Measure the model with the products `chosen` in int8, on some rows or, as the budget does, on everything."""
        clone = self.model.clone()
        editor = Editor(clone)
        for product, twin in zip(self.blocks.products, Products(clone.graph).by_output.values(), strict=True):
            if product.out in chosen:
                _write(twin, self.stored[product.out], editor)
        if rows is None and self.tables:
            _quantise_embeddings(editor, self.options._least_table)
        return self.trial.measure(clone, rows)

    def _holds(self, verdict: Verdict) -> bool:
        budget = self.options.contract
        cosine, agreement = (least and 1 - (1 - least) * (1 - SPARE) for least in (budget.cosine, budget.agreement))
        return ffc.Budget(cosine, agreement).fault(verdict) is None

    def _place(self, product: Product) -> str:
        layers = (layer.index for layer in self.blocks.layers if any(p.out is product.out for p in layer.products()))
        layer = next(layers, None)
        return f"{product.role}{'' if layer is None else f' of layer {layer}'}, {product.name}"


def _unfit(model: ir.Model, products: Collection[Product]) -> Iterator[tuple[str, str]]:
    """Yield what multiplies by a constant weight and is no product that can be taken, and why."""
    known = {product.node for product in products}
    for node in model.graph.all_nodes():
        if node in known or not (quantises(node) or node.op_type in OTHER_PRODUCTS.get(node.domain, ())):
            continue
        weights = [constant(value) for value in node.inputs[:4]]
        if any(weight is not None and weight.ndim > 1 for weight in weights) and not all(
            w is not None for w in weights
        ):
            yield survey.name_of(node), _why_unfit(node, weights, model.graph)


def _why_unfit(node: ir.Node, weights: list[np.ndarray | None], graph: ir.Graph) -> str:
    if called(node) or any(weight is not None and weight.dtype.itemsize == 1 for weight in weights):
        return "it is int8 already"
    if node.graph is not graph:
        return "it lies in a subgraph"
    if node.op_type == "Gemm":
        return "it is a Gemm with transA, alpha, beta, or a bias that is no constant vector; run `clean` before"
    if node.op_type != "MatMul":
        return f"{node.op_type} is not taken; MatMul, Gemm and ffc's own products are"
    right = weights[1]
    return "its constant is the left operand" if right is None else f"its weight has {right.ndim} axes, not 2"


def _quantise_embeddings(editor: Editor, least: int, log: ffc.Log | None = None) -> int:
    """Store the tables of look-ups as int8 where they have `least` bytes together, and return how many."""
    number = 0
    for node, stored, given in lookups(editor.graph, "int8"):
        tables = {name: _table(given[name]) for name in stored.tables}
        if sum(table.nbytes for table in tables.values()) < least:
            continue
        if not all(np.isfinite(table).all() for table in tables.values()):  # masks are kept in tables too, as -inf
            if log is not None:
                log.missed(f"embedding table {survey.name_of(node)}", "its table is not finite")
            continue
        inputs: dict[str, Any] = {**given}
        for name, table in tables.items():
            inputs[name], inputs[stored.scales[name]] = quantise.rows(table)
        editor.splice(stored.call, inputs, node.attributes, replaces=node.outputs[0])
        number += len(tables)
    return number


def _table(value: ir.Value | None) -> np.ndarray:
    array = constant(value)
    assert array is not None
    return array
