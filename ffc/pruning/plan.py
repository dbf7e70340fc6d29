"""Plans: which heads and units each layer keeps, made from importance and written as JSON."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ffc.errors import CannotApplyError, InputError, UsageError, nearest
from ffc.graph import publish
from ffc.graph.blocks import Blocks, Layer, Product
from ffc.graph.files import load
from ffc.graph.finder import find
from ffc.pruning.importance import Importance, head_count, unit_count
from ffc.pruning.score import METHODS, by_norm

__all__ = ["FORMAT", "LayerPlan", "Plan", "check", "fingerprint", "make_plan", "stamp", "uniform"]

FORMAT = "ffc.plan/1"

Count = int | float | None
"""How much to keep in each layer: a number of heads or units, a share in (0, 1], or None for all."""

# Lists will do for tuples; what they hold is strict, so that neither true nor 1.0 passes for 1.
_Lax = Field(strict=False)
_Index = Annotated[int, Field(ge=0, strict=True)]
_Indices = Annotated[tuple[_Index, ...], _Lax]
_Scales = Annotated[tuple[Annotated[float, Field(strict=True)], ...], _Lax]
_ROLES = {"heads": ("q", "k", "v", "attn_out"), "units": ("ffn_in", "gate", "ffn_out")}
_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class LayerPlan(BaseModel):
    """What one layer keeps.

    Attributes:
        heads: Kept heads, ascending, or None for all.
        units: Kept feed-forward units, ascending, or None for all.
        of_heads: Number of heads before, where known.
        of_units: Number of units before, where known.
        head_scales: A factor for each kept head, folded into its rows of the output projection (Kwon et al.,
            "A Fast Post-Training Pruning Framework for Transformers", arXiv 2204.09656).
        unit_scales: A factor for each kept unit, folded into its row of the second feed-forward weight.
        fingerprints: By role, the `fingerprint` of the weight that this plan was made for.
    """

    model_config = _STRICT

    heads: _Indices | None = None
    units: _Indices | None = None
    of_heads: _Index | None = None
    of_units: _Index | None = None
    head_scales: _Scales | None = None
    unit_scales: _Scales | None = None
    fingerprints: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = {}

    @model_validator(mode="after")
    def _sound(self) -> LayerPlan:
        _check_kept("heads", self.heads, self.of_heads, self.head_scales)
        _check_kept("units", self.units, self.of_units, self.unit_scales)
        for role in self.fingerprints:
            if not any(role in roles for roles in _ROLES.values()):
                raise ValueError(f"has a fingerprint of '{role[:40]}', which is no role")
        return self


class Plan(BaseModel):
    """What each layer of a model keeps; ``Plan.load`` and `save` read and write it."""

    model_config = _STRICT

    format: Literal["ffc.plan/1"] = "ffc.plan/1"
    layers: Annotated[tuple[LayerPlan, ...], Field(min_length=1, strict=False)]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan.

        Raises:
            InputError: If the file is missing or not a sound plan: of another format, with a layer left empty, with
                indices that are out of range, unsorted or repeated, or with scales that do not match.
        """
        if Path(path).exists() and not Path(path).is_file():  # a pipe would never end
            raise InputError(f"cannot read {path}: it is no regular file; `ffc plan` makes one")
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; `ffc plan` makes one") from error
        except ValidationError as error:
            raise InputError(f"{path} is not a plan that `ffc plan` makes: {_first(error)}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON.

        Raises:
            UsageError: If the path cannot be written.
        """
        try:
            publish.write(Path(path), self.to_json().encode())
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}; choose another place") from error

    def to_json(self) -> str:
        """Return the plan in the form of its file."""
        return self.model_dump_json(exclude_none=True, indent=1) + "\n"

    def summary(self) -> str:
        """Return one line per layer: heads and units kept, and of how many."""
        lines = []
        for index, layer in enumerate(self.layers):
            heads, units = _kept("heads", layer.heads, layer.of_heads), _kept("units", layer.units, layer.of_units)
            lines.append(f"layer {index}: {heads}, {units}")
        return "\n".join(lines)


def uniform(importance: Importance, heads: Count, ffn: Count, blocks: Blocks | None = None) -> Plan:
    """Keep the same number or share of each layer, those that score highest.

    Args:
        importance: Scores; of equal ones the first is kept.
        heads: Heads to keep per layer: a number, a share in (0, 1] rounded half up to at least one, or None for all.
        ffn: Feed-forward units to keep per layer, likewise.
        blocks: The blocks of the model, to say why a layer has none of what is asked for.

    Returns:
        A plan without fingerprints; `stamp` adds them.

    Raises:
        UsageError: If a number is below one or above what a layer has, or a share is outside (0, 1].
        CannotApplyError: If a layer has no such part at all, or none was found.
    """
    layers = []
    for index, scores in enumerate(importance.layers):
        layers.append(
            LayerPlan(
                heads=_top(scores.heads, heads, f"layer {index}: heads", _why_no_heads(blocks, index)),
                units=_top(scores.ffn, ffn, f"layer {index}: ffn", _why_no_units(blocks)),
                of_heads=len(scores.heads),
                of_units=len(scores.ffn),
            )
        )
    return Plan(layers=tuple(layers))


def fingerprint(matrix: np.ndarray) -> str:
    """Return the sha256, in hex, of a weight [in, out] as little-endian float32 in C order."""
    return hashlib.sha256(np.ascontiguousarray(matrix, dtype="<f4").tobytes()).hexdigest()


def stamp(plan: Plan, blocks: Blocks) -> Plan:
    """Return `plan` with the fingerprints of a model's weights.

    Raises:
        CannotApplyError: If the plan does not fit the layers and widths of the model.
    """
    _check_shape(plan, blocks)
    layers = [
        kept.model_copy(update={"fingerprints": {p.role: fingerprint(p.matrix()) for p in layer.products()}})
        for kept, layer in zip(plan.layers, blocks.layers, strict=True)
    ]
    return Plan(layers=tuple(layers))


def check(plan: Plan, blocks: Blocks) -> None:
    """Check that a plan was made for the model that has these blocks.

    Raises:
        CannotApplyError: If layers, widths or fingerprints differ, or a part that the plan cuts has no fingerprint; the
            message names layer and role.
    """
    _check_shape(plan, blocks)
    for kept, layer in zip(plan.layers, blocks.layers, strict=True):
        cut = {role for part, roles in _ROLES.items() if getattr(kept, part) is not None for role in roles}
        for product in layer.products():
            _check_fingerprint(kept, layer.index, product, product.role in cut)


def make_plan(
    model_path: str | os.PathLike[str],
    *,
    heads: Count,
    ffn: Count,
    importance: str | os.PathLike[str] | None = None,
    by: str | None = None,
) -> Plan:
    """Make a uniform plan for a model file, with fingerprints.

    Args:
        model_path: The ONNX model, as exported or later.
        heads: Heads to keep per layer, see `uniform`.
        ffn: Feed-forward units to keep per layer, see `uniform`.
        importance: An importance file.
        by: A way to score the model without data instead: ``norm``.

    Raises:
        UsageError: If there is nothing to cut or not exactly one source of scores.
        InputError: If a file is broken.
        CannotApplyError: If no layers are found in the model, or the importance is of another shape.
    """
    if heads is None and ffn is None:
        raise UsageError("the plan would keep everything; say how much to keep, such as --heads 0.5 --ffn 0.5")
    if importance is None and by is None:
        raise UsageError(
            "a plan needs scores: `ffc plan MODEL --by norm` takes them from the weights, and --importance from a file "
            "that `ffc importance` makes"
        )
    if importance is not None and by is not None:
        raise UsageError(f"two sources of scores, --importance {importance} and --by {by}; give one")
    if by is not None and by not in METHODS:
        raise UsageError(f"cannot score by '{by}'{nearest(by, METHODS)}")
    scores = None if importance is None else Importance.load(importance)
    blocks = find(load(model_path))
    if scores is None:
        scores = by_norm(blocks)
    if reason := scores.mismatch(blocks):
        raise CannotApplyError(f"{importance} was made for another model: {reason}")
    return stamp(uniform(scores, heads, ffn, blocks), blocks)


def _check_kept(part: str, kept: Sequence[int] | None, of: int | None, scales: Sequence[float] | None) -> None:
    """Raise what pydantic turns into an error of the layer at hand."""
    if kept is None:
        if scales is not None:
            raise ValueError(f"has scales for {part} but does not list the {part}")
        return
    if not kept:
        raise ValueError(f"keeps no {part}, which empties the layer")
    if any(a >= b for a, b in itertools.pairwise(kept)):
        raise ValueError(f"lists {part} unsorted or twice, expected ascending")
    if of is not None and kept[-1] >= of:
        raise ValueError(f"keeps {part[:-1]} {kept[-1]} of {of}, which is out of range")
    if scales is not None and len(scales) != len(kept):
        raise ValueError(f"has {len(scales)} scales for {len(kept)} {part}")


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    what = " ".join(first["msg"].removeprefix("Value error, ").split())[:200]
    return f"{where}: {what}" if where else what


def _kept(part: str, kept: Sequence[int] | None, of: int | None) -> str:
    if kept is None:
        return f"{part} all" if of is None else f"{part} {of} of {of}"
    return f"{part} {len(kept)}" if of is None else f"{part} {len(kept)} of {of}"


def _why_no_heads(blocks: Blocks | None, index: int) -> str:
    core = None if blocks is None or index >= len(blocks.layers) else blocks.layers[index].core
    return "" if core is None or not core.why else f" ({core.core.op_type} {core.core.name}: {core.why})"


def _why_no_units(blocks: Blocks | None) -> str:
    missed = () if blocks is None else blocks.unmatched
    return next((f" ({miss.where}: {miss.why})" for miss in missed if miss.kind == "feed-forward"), "")


def _top(scores: np.ndarray, count: Count, where: str, why: str = "") -> tuple[int, ...] | None:
    """Return the indices of the highest scores, ascending; `why` there are none."""
    if count is None:
        return None
    if not len(scores):
        raise CannotApplyError(
            f"{where}={count} was asked for and this layer has none that could be found{why}; "
            "plan it by hand, or leave this part whole in all layers"
        )
    if isinstance(count, float):
        if not 0 < count <= 1:
            raise UsageError(f"{where}={count} is not a share in (0, 1]; a number of parts has no decimal point")
        count = max(1, int(count * len(scores) + 0.5))
    if not 1 <= count <= len(scores):
        raise UsageError(f"{where}={count} cannot be kept, the layer has {len(scores)}; give 1 to {len(scores)}")
    best = np.argsort(-scores, kind="stable")[:count]  # stable: of equal scores the lower index wins
    return tuple(sorted(int(index) for index in best))


def _check_shape(plan: Plan, blocks: Blocks) -> None:
    if len(plan.layers) != len(blocks.layers):
        raise CannotApplyError(
            f"the plan has {len(plan.layers)} layers and the model has {len(blocks.layers)}; make a plan for this model"
        )
    for kept, layer in zip(plan.layers, blocks.layers, strict=True):
        _check_width(layer, "heads", kept.heads, kept.of_heads, head_count(layer))
        _check_width(layer, "units", kept.units, kept.of_units, unit_count(layer))


def _check_width(layer: Layer, part: str, kept: Sequence[int] | None, of: int | None, there: int) -> None:
    advice = "make a plan for this model"
    roles = "/".join(role for role in _ROLES[part] if role != "gate")
    if of is not None and of != there:
        raise CannotApplyError(
            f"layer {layer.index}, {roles}: the plan is for {of} {part} and the model has {there}; {advice}"
        )
    if kept and kept[-1] >= there:
        raise CannotApplyError(
            f"layer {layer.index}, {roles}: the plan keeps {part[:-1]} {kept[-1]} and the model has {there}; {advice}"
        )


def _check_fingerprint(kept: LayerPlan, index: int, product: Product, cut: bool) -> None:
    expected = kept.fingerprints.get(product.role)
    if expected is None:
        if cut:
            raise CannotApplyError(
                f"layer {index}, {product.role}: the plan cuts it without a fingerprint of the weight it was made for; "
                "make the plan with `ffc plan`"
            )
        return
    found = fingerprint(product.matrix())
    if found != expected:
        raise CannotApplyError(
            f"layer {index}, {product.role}: the weight is not the one the plan was made for (sha256 {found[:12]}, "
            f"expected {expected[:12]}); make a plan for this model"
        )
