"""Plans: which heads and units each layer keeps, made from importance and written as JSON."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ffc.errors import CannotApplyError, InputError
from ffc.graph.blocks.structure import Blocks
from ffc.graph.files import publish
from ffc.graph.files.destination import named
from ffc.pruning.importance import head_count, unit_count, weights_hash

__all__ = ["FORMAT", "LayerPlan", "Macs", "Plan", "check", "check_sizes", "check_weight", "fingerprint", "stamp"]

FORMAT = "ffc.plan/1"

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


class Macs(BaseModel):
    """What layers cost with a plan: multiply-accumulates of their products for one row, those of attention included.

    Attributes:
        kept: With what the plan keeps.
        of: With everything.
        length: The length of the row, in tokens.
    """

    model_config = _STRICT

    kept: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _sound(self) -> Macs:
        if self.kept > self.of:
            raise ValueError(f"keeps {self.kept} of {self.of}, which is more than there are")
        return self


class Plan(BaseModel):
    """What each layer of a model keeps; ``Plan.load`` and `save` read and write it.

    Attributes:
        format: The format of the file, and its version.
        layers: What each layer keeps.
        macs: What the layers then cost, where it was counted.
    """

    model_config = _STRICT

    format: Literal["ffc.plan/1"] = "ffc.plan/1"
    layers: Annotated[tuple[LayerPlan, ...], Field(min_length=1, strict=False)]
    macs: Macs | None = None

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
        with publish.asked_for(f"{path}", "choose another place"):
            publish.write(named(path), self.to_json().encode())

    def to_json(self) -> str:
        """Return the plan in the form of its file."""
        return self.model_dump_json(exclude_none=True, indent=1) + "\n"

    def summary(self) -> str:
        """Return one line per layer, heads and units kept and of how many, and one for what they cost together."""
        lines = [
            f"layer {index}: {_kept('heads', each.heads, each.of_heads)}, {_kept('units', each.units, each.of_units)}"
            for index, each in enumerate(self.layers)
        ]
        if (macs := self.macs) is not None:
            share = f"{100 * macs.kept / macs.of:.2f} % of the multiply-accumulates"
            lines.append(f"all layers: {share} at {macs.length} tokens ({macs.kept:,} of {macs.of:,})")
        return "\n".join(lines)


def fingerprint(matrix: np.ndarray) -> str:
    """Return the sha256, in hex, of a weight [in, out] as little-endian float32 in C order."""
    return weights_hash([matrix])


def stamp(plan: Plan, blocks: Blocks) -> Plan:
    """Return `plan` with the fingerprints of a model's weights.

    Raises:
        CannotApplyError: If the plan does not fit the layers and widths of the model.
    """
    check_sizes(plan, _sizes(blocks))
    layers = [
        kept.model_copy(update={"fingerprints": {p.role: fingerprint(p.matrix()) for p in layer.products()}})
        for kept, layer in zip(plan.layers, blocks.layers, strict=True)
    ]
    return plan.model_copy(update={"layers": tuple(layers)})


def check(plan: Plan, blocks: Blocks) -> None:
    """Check that a plan was made for the model that has these blocks.

    Raises:
        CannotApplyError: If layers, widths or fingerprints differ, or a part that the plan cuts has no fingerprint; the
            message names layer and role.
    """
    check_sizes(plan, _sizes(blocks))
    for kept, layer in zip(plan.layers, blocks.layers, strict=True):
        cut = {role for part, roles in _ROLES.items() if getattr(kept, part) is not None for role in roles}
        for product in layer.products():
            check_weight(kept, layer.index, product.role, product.matrix(), needed=product.role in cut)


def _sizes(blocks: Blocks) -> tuple[tuple[int, int], ...]:
    return tuple((head_count(layer), unit_count(layer)) for layer in blocks.layers)


def check_sizes(plan: Plan, sizes: Sequence[tuple[int, int]]) -> None:
    """Check that a plan is for layers of these sizes: numbers of heads and of feed-forward units, by layer.

    Raises:
        CannotApplyError: If it is for other layers or widths; the message names layer and roles.
    """
    if len(plan.layers) != len(sizes):
        raise CannotApplyError(
            f"the plan has {len(plan.layers)} layers and the model has {len(sizes)}; make a plan for this model"
        )
    for index, (kept, (heads, units)) in enumerate(zip(plan.layers, sizes, strict=True)):
        _check_width(index, "heads", kept.heads, kept.of_heads, heads)
        _check_width(index, "units", kept.units, kept.of_units, units)


def check_weight(kept: LayerPlan, index: int, role: str, matrix: np.ndarray, *, needed: bool) -> None:
    """Check the fingerprint that a plan has of a weight [in, out] of a layer; `needed` says whether it must have one.

    Raises:
        CannotApplyError: If the weight is another one, or a fingerprint that is needed is missing.
    """
    expected = kept.fingerprints.get(role)
    if expected is None:
        if needed:
            raise CannotApplyError(
                f"layer {index}, {role}: the plan cuts it without a fingerprint of the weight it was made for; "
                "make the plan with `ffc plan`"
            )
        return
    found = fingerprint(matrix)
    if found != expected:
        raise CannotApplyError(
            f"layer {index}, {role}: the weight is not the one the plan was made for (sha256 {found[:12]}, "
            f"expected {expected[:12]}); make a plan for this model"
        )


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


def _check_width(index: int, part: str, kept: Sequence[int] | None, of: int | None, there: int) -> None:
    where = f"layer {index}, {'/'.join(role for role in _ROLES[part] if role != 'gate')}: the plan"
    has = f"and the model has {there}; make a plan for this model"
    if of is not None and of != there:
        raise CannotApplyError(f"{where} is for {of} {part} {has}")
    if kept and kept[-1] >= there:
        raise CannotApplyError(f"{where} keeps {part[:-1]} {kept[-1]} {has}")
