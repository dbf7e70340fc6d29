"""The pass `prune`: slice away the attention heads and feed-forward units that a plan does not keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

import ffc
from ffc.errors import CannotApplyError, UsageError
from ffc.graph.blocks.prequantised import reason_to_leave
from ffc.graph.blocks.structure import Attention, Blocks, Layer, Product
from ffc.graph.dialect.edit import Editor, constant, only_consumer
from ffc.graph.dialect.function import called
from ffc.pruning import Importance, LayerPlan, Plan, by_norm, check, uniform
from ffc.settings.wanted import AMOUNT

from . import survey

_HOW = "make one with `ffc plan MODEL --by norm --heads 0.5 --ffn 0.5 -o plan.json` and give prune{plan=plan.json}"


@dataclass(frozen=True)
class Prune(ffc.Pass):
    """Slice away the attention heads and feed-forward units that a plan does not keep.

    The plan is given, or made from an importance file or the norm of the weights; `heads` and `ffn` then say how much
    each layer keeps. Without any of these, the plan is used that the model's metadata names or that lies beside it.
    Layers may keep different numbers. Weights are copied, never changed in place: layers may share them.
    """

    name = "prune"
    needs = ("fuse",)
    before_rounding = True

    plan: Path | None = ffc.option("plan.json as `ffc plan` writes it", default=None, file=True)
    importance: Path | None = ffc.option(
        "importance.safetensors; heads or ffn say how much to keep", default=None, file=True
    )
    heads: int | float | None = ffc.option(
        "heads to keep per layer: a number, or a share such as 0.5", default=None, wanted=AMOUNT
    )
    ffn: int | float | None = ffc.option(
        "feed-forward units to keep per layer: a number, or a share", default=None, wanted=AMOUNT
    )
    by: Literal["norm"] | None = ffc.option("score heads and units by the norm of their weights", default=None)

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        given = [name for name in ("plan", "importance", "by") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"prune: {' and '.join(given)} each say what to keep; give one of them")
        if self.plan is not None and self._asked:
            raise UsageError("prune: a plan says already how much to keep; leave heads and ffn out")
        if given and self.plan is None and not self._asked:
            raise UsageError(f"prune: {given[0]} does not say how much to keep; add heads=0.5 or ffn=0.5, or a number")

    @property
    def _asked(self) -> bool:
        return self.heads is not None or self.ffn is not None

    @property
    def contract(self) -> ffc.EqualToMasked:
        """Outputs equal those of the model with what the plan drops set to zero, and what it scales scaled."""
        return ffc.EqualToMasked(masked=self._masked)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        if not (self.plan or self.importance or self.by):
            log.note(f"as {_beside(model, 'importance' if self._asked else 'plan')} says, which belongs to the model")
        _slice(model, self._plan, log)
        if not log.count:
            log.missed("plan", "it keeps every head and every unit")
        # They name files made for the model before, which do not fit the result.
        model.metadata_props.pop("ffc.plan", None)
        model.metadata_props.pop("ffc.importance", None)

    def survey(self, tried: ffc.Tried) -> ffc.Survey:
        """See `ffc.Pass.survey`: heads and units of every layer, and whether a plan could take one of them away."""
        found = survey.findings(ffc.find_blocks(tried.before), partial(_refusal, tried.before))
        refused = tried.refused
        if refused and self == Prune() and found:  # that no plan was given does not matter here
            could = any(finding.taken for finding in found)
            tried.log.notes += [refused] if could else []
            refused = None if could else f"pass 'prune' can cut nothing; first: {found[0].why}"
        return ffc.Survey(found, refused, listed=True)

    def _masked(self, model: ir.Model) -> ir.Model:
        """Return the model with the outgoing rows of what the plan drops set to zero, and those it scales scaled."""
        masked = model.clone()
        blocks = ffc.find_blocks(masked)
        plan = self._plan(model, blocks)
        editor = Editor(masked)
        for layer, kept in zip(blocks.layers, plan.layers, strict=True):
            for part in _parts(layer, kept):
                factors = np.zeros(part.count)
                factors[list(part.kept)] = 1.0 if part.scales is None else part.scales
                _Knife(editor, layer.index).rows(part.out, np.arange(part.out.sizes[0]), factors)
        return masked

    def _plan(self, model: ir.Model, blocks: Blocks) -> Plan:
        """Return the plan asked for, checked against the model."""
        if not blocks.layers:
            nearest = "".join(f"; {miss.where}: {miss.why}" for miss in blocks.unmatched[:1])
            raise CannotApplyError(f"no encoder layer was found in the model{nearest}")
        if self.by is not None:
            return uniform(by_norm(blocks), self.heads, self.ffn, blocks)
        path = self.plan or self.importance or _beside(model, "importance" if self._asked else "plan")
        if self._asked:
            scores = Importance.load(path)
            if reason := scores.mismatch(blocks):
                raise CannotApplyError(f"{path} was made for another model: {reason}; make it from this model")
            return uniform(scores, self.heads, self.ffn, blocks)
        plan = Plan.load(path)
        try:
            check(plan, blocks)
        except CannotApplyError as error:
            raise CannotApplyError(f"{path}: {error}") from error
        return plan


def _slice(model: ir.Model, choose: Callable[[ir.Model, Blocks], Plan], log: ffc.Log) -> None:
    """Slice every layer as the plan says that `choose` returns for the model and its blocks."""
    if reason := reason_to_leave(model):
        raise CannotApplyError(reason)
    blocks = ffc.find_blocks(model)
    plan = choose(model, blocks)
    editor = Editor(model)
    for layer, kept in zip(blocks.layers, plan.layers, strict=True):
        knife = _Knife(editor, layer.index)
        for part in _parts(layer, kept):
            _cut(knife, part, log)


def _refusal(model: ir.Model, plan: Plan) -> str | None:
    """Say why a model cannot be sliced by a plan, None if it can."""
    try:
        _slice(model.clone(), lambda model, blocks: plan, ffc.Log())
    except CannotApplyError as error:
        return str(error)
    return None


def _beside(model: ir.Model, kind: Literal["plan", "importance"]) -> Path:
    """Return the file that the model names in its metadata or that lies beside it, or say what to do."""
    place = model.meta.get("ffc.path")
    if place is None:
        raise CannotApplyError(f"no {kind} was given and the model comes from no file to look beside; {_HOW}")
    if found := _search(model, Path(place), kind):
        return found
    if kind == "plan" and (scores := _search(model, Path(place), "importance")):
        raise CannotApplyError(
            f"no plan beside {place}, only {scores.name}; say how much to keep: prune{{heads=0.5 ffn=0.5}}"
        )
    raise CannotApplyError(f"no {kind} was given, named in the model's metadata or found beside {place}; {_HOW}")


def _search(model: ir.Model, place: Path, kind: Literal["plan", "importance"]) -> Path | None:
    """Look for a file that belongs to the model at `place`."""
    folder = place.parent
    named = model.metadata_props.get(f"ffc.{kind}")
    if named is not None:
        path = folder / named
        if not path.resolve().is_relative_to(folder.resolve()):  # models come from anywhere, and so do their metadata
            raise CannotApplyError(
                f"the model's metadata name a {kind} outside its folder, '{named}'; give {kind}=PATH"
            )
        return path
    ending = ".json" if kind == "plan" else ".safetensors"
    names = (f"{place.stem}.{kind}{ending}", f"{kind}{ending}")
    return next((folder / name for name in names if (folder / name).is_file()), None)


@dataclass(frozen=True)
class _Part:
    """Heads or units of one layer, each with an equal share in the columns of `into` and the rows of `out`."""

    kind: str
    count: int
    into: Sequence[Product]
    out: Product
    kept: Sequence[int]
    scales: Sequence[float] | None
    attention: Attention | None = None

    def places(self, width: int) -> np.ndarray:
        """Return which of as many columns or rows belong to what is kept."""
        return np.arange(width).reshape(self.count, -1)[list(self.kept)].ravel()


def _parts(layer: Layer, plan: LayerPlan) -> Iterator[_Part]:
    """Yield the heads and the units of a layer, as far as they can be cut and the plan says which to keep."""
    attention, ffn = layer.cuttable, layer.ffn
    if attention is not None and plan.heads is not None:
        *into, out = attention.roles.values()
        yield _Part("head", attention.heads, into, out, plan.heads, plan.head_scales, attention)
    if ffn is not None and plan.units is not None:
        *into, out = ffn.products()
        yield _Part("unit", ffn.units, into, out, plan.units, plan.unit_scales)


def _cut(knife: _Knife, part: _Part, log: ffc.Log) -> None:
    """Keep the planned heads or units of one layer."""
    dropped = part.count - len(part.kept)
    log.note(f"{knife.where}: {part.kind}s {len(part.kept)} of {part.count}")
    log.did(f"{part.kind}s", dropped)
    log.did(f"{part.kind} scales", len(part.scales or ()))
    if dropped:
        if part.attention is not None:
            if reason := _attention_obstacle(part.attention):
                raise CannotApplyError(f"{knife.where}: heads cannot be cut: {reason}")
            _cut_mask(knife, part.attention, part.kept)
            knife.editor.set_attribute(part.attention.node, "heads", len(part.kept))
        for product in {product.out: product for product in part.into}.values():
            knife.columns(product, part.places(product.sizes[1]))
    if dropped or part.scales is not None:
        scales = None if part.scales is None else np.asarray(part.scales)
        knife.rows(part.out, part.places(part.out.sizes[0]), scales)


def _cut_mask(knife: _Knife, attention: Attention, heads: Sequence[int]) -> None:
    """Take the kept heads of a mask that has one plane for each head."""
    function = called(attention.node)
    mask = None if function is None else function.given(attention.node).get(function.mask)
    if mask is None:
        return
    shape = knife.editor.shapes.of(mask)
    planes = shape[1] if shape is not None and len(shape) == 4 else None
    if planes == 1:
        return
    if planes != attention.heads:
        known = "unknown" if shape is None else f"[{', '.join(map(str, shape))}]"
        raise CannotApplyError(
            f"{knife.where}: heads cannot be cut: the shape of the mask '{mask.name}' is {known}, "
            f"expected [batch, 1 or {attention.heads}, tokens, tokens]"
        )
    kept = knife.editor.at(attention.node, f"{mask.name}.pruned").Gather(mask, heads, axis=1)
    knife.editor.replace_input(attention.node, attention.node.inputs.index(mask), kept)


@dataclass(frozen=True)
class _Knife:
    """Replaces weights of the products of one layer by parts of them."""

    editor: Editor
    layer: int

    @property
    def where(self) -> str:
        """The layer, as errors and notes call it."""
        return f"layer {self.layer}"

    def columns(self, product: Product, kept: np.ndarray) -> None:
        """Keep columns of a product's weight [I, O] and of its bias; a part of one becomes a product of its own."""
        weight = np.take(product.matrix(), kept, axis=1)
        if product.columns is not None:
            bias = product.vector()
            bias = np.zeros(len(kept), weight.dtype) if bias is None else np.take(bias, kept)
            self.editor.splice(ffc.ops.Linear.call, [product.x, weight, bias], replaces=product.out)
            return
        self._replace(product, product.weight, weight.T if product.transposed else weight)
        bias = constant(product.bias)
        if product.bias is not None and bias is None:
            raise CannotApplyError(f"{self.where}, {product.role}: the bias '{product.bias.name}' is computed")
        if product.bias is not None and bias is not None and bias.size > 1:
            self._replace(product, product.bias, np.take(bias, kept, axis=-1))

    def rows(self, product: Product, kept: np.ndarray, scales: np.ndarray | None) -> None:
        """Keep rows of a product's weight [I, O], each times its scale; neighbours may share one."""
        matrix = product.matrix()
        weight = np.take(matrix, kept, axis=0)
        if scales is not None:
            weight = (weight * np.repeat(scales, len(kept) // len(scales))[:, None]).astype(matrix.dtype)
        self._replace(product, product.weight, weight.T if product.transposed else weight)

    def _replace(self, product: Product, old: ir.Value, array: np.ndarray) -> None:
        """Let the nodes of one product, and no others, read a new constant."""
        new = self.editor.constant(np.ascontiguousarray(array), f"{old.name}.pruned")
        places = [
            (node, index)
            for node in {product.node, product.out.producer()}
            for index, value in enumerate(node.inputs if node is not None else ())
            if value is old
        ]
        if not places:
            raise CannotApplyError(
                f"{self.where}, {product.role}: '{product.node.name}' reads '{old.name}' through other nodes; "
                "run `clean` before"
            )
        for node, index in places:
            assert node is not None
            self.editor.replace_input(node, index, new)


def _attention_obstacle(attention: Attention) -> str | None:
    """Say why heads cannot be cut from an attention, or None if they can."""
    core, function = attention.node, called(attention.node)
    *into, out = attention.roles.values()
    if function is None or function.precision != "float32":
        return f"`fuse` did not take it; it ends in '{core.name}' ({core.op_type})"
    for product, value in zip(into, core.inputs, strict=False):
        if product.columns is not None:
            return f"{product.role} is part of a fused product that `fuse` did not split"
        if value is not product.out or not _leads_to(product, core):
            return f"the output of {product.role} is used otherwise than by '{core.name}' as {product.role}"
        if product.matrix().shape[1] % attention.heads:
            return (
                f"{product.role} has {product.matrix().shape[1]} columns, which {attention.heads} heads do not divide"
            )
    if out.x is not attention.context or only_consumer(attention.context) is not out.node:
        return f"the output of '{core.name}' is used otherwise than by attn_out"
    return None


def _leads_to(product: Product, consumer: ir.Node) -> bool:
    """Whether all that a product computes goes to `consumer`."""
    inner = product.node.outputs[0]
    if inner is not product.out and only_consumer(inner) is not product.out.producer():
        return False
    return only_consumer(product.out) is consumer
