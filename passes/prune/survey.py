"""What `prune` says of a model: heads and units of every layer, and whether a plan could take one of them away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ffc import Finding
from ffc.compiler import survey
from ffc.graph.blocks.structure import Blocks, Layer
from ffc.pruning import LayerPlan, Plan


def findings(blocks: Blocks, refusal: Callable[[Plan], str | None]) -> list[Finding]:
    """Return heads and units of every layer, and whether one could be cut; `refusal` says why a plan cannot be met."""
    parts = [part for layer in blocks.layers for part in _parts(layer)]
    refusals = _refusals(parts, len(blocks.layers), refusal)
    found = [
        Finding(part.kind, part.name, part.layer, part.what, part not in refusals, refusals.get(part, "can be cut"))
        for part in parts
    ]
    found += [missing for layer in blocks.layers for missing in _missing(layer)]
    return [*sorted(found, key=lambda one: (one.layer or 0, one.kind)), *survey.unmatched(blocks)]


def _missing(layer: Layer) -> Iterator[Finding]:
    """Yield the parts of a layer that are not there, or not in a form that could be cut."""
    if layer.attention is not None and layer.attention.why:
        name = layer.attention.context.name or ""
        yield Finding("heads", name, layer.index, survey.heads(layer.attention), False, layer.attention.why)
    if layer.ffn is None:
        yield survey.no_ffn("units", layer)


@dataclass(frozen=True)
class _Part:
    """What prune may cut in one layer: its heads or its units."""

    kind: Literal["heads", "units"]
    layer: int
    count: int
    name: str
    what: str

    def without_the_first(self) -> dict[str, tuple[int, ...]]:
        """Return the part of a plan that drops the first head or unit; the only one cannot be dropped and is kept."""
        return {self.kind: tuple(range(min(1, self.count - 1), self.count))}


def _parts(layer: Layer) -> Iterator[_Part]:
    attention, ffn = layer.cuttable, layer.ffn
    if attention is not None:
        names = ", ".join(product.name for product in attention.roles.values())
        yield _Part("heads", layer.index, attention.heads, names, survey.heads(attention))
    if ffn is not None:
        names = f"{ffn.ffn_in.name}, {ffn.ffn_out.name}"
        yield _Part("units", layer.index, ffn.units, names, f"{ffn.units} units")


def _refusals(parts: Sequence[_Part], layers: int, refusal: Callable[[Plan], str | None]) -> dict[_Part, str]:
    """Return why a part cannot be cut, for each that cannot; plans that drop a little are tried for that."""

    def without(cut: Sequence[_Part]) -> Plan:
        kept = [LayerPlan()] * layers
        for part in cut:
            kept[part.layer] = kept[part.layer].model_copy(update=part.without_the_first())
        return Plan(layers=tuple(kept))

    if not parts or refusal(without(parts)) is None:
        return {}
    alone = {part: refusal(without([part])) for part in parts}
    return {part: why.removeprefix(f"layer {part.layer}: ") for part, why in alone.items() if why is not None}
