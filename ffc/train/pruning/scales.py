"""Scales: a factor for every head and unit that a plan keeps, which makes up for those that it drops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ffc.errors import InputError
from ffc.progress import Tell
from ffc.pruning.plan import LayerPlan, Plan, check_sizes
from ffc.train.checks import check_precision, check_rows
from ffc.train.evaluate import batches, evaluating
from ffc.train.models.layers import TorchLayer, find_layers
from ffc.train.pruning.masks import factors, masked
from ffc.train.pruning.replay import State, start

if TYPE_CHECKING:
    from ffc.train.encoding import Collator, Rows

__all__ = ["LARGEST", "tune"]

LARGEST = 10.0
"""No scale is larger, of either sign: beyond it Kwon et al. take the fit for broken."""

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""What pulls the scale of a part towards 1, as shares of the energy that the part puts out."""

Role = Literal["attn_out", "ffn_out"]


def tune(
    model: nn.Module,
    plan: Plan,
    rows: Rows,
    collator: Collator,
    *,
    batch_size: int = 32,
    first_token: bool = False,
    progress: Tell | None = None,
) -> Plan:
    """Scale what a plan keeps so that each layer puts out what it did before.

    The third stage of Kwon et al. ("A Fast Post-Training Pruning Framework for Transformers", arXiv 2204.09656). Layer
    by layer, first the heads and then the units get factors s that minimise ``|y - (r + sum_k s_k c_k)|²`` over real
    tokens: y is the residual stream of the whole model behind the attention, or the feed-forward network; r is the
    stream before it in the pruned model, with the scales found so far; c_k is what head or unit k adds to it.

    A ridge pulls factors towards 1, that of a part by a share of its energy ``|c_k|²``. The share is the one with which
    each half of the rows best predicts the other; where none does better than factors of 1, these stay. It grows until
    no factor is beyond `LARGEST`.

    Only forward passes are made: one of the whole model, and four of each layer. What is held is the residual stream of
    all tokens four times, and a matrix [units, units].

    Args:
        model: A classifier, on any device; it is not changed.
        plan: What to keep of it; its scales, if any, are not used.
        rows: Some hundred to two thousand; not those on which results are reported. Labels are not needed.
        collator: Makes a batch of some rows.
        batch_size: Rows at a time; the result does not depend on it.
        first_token: Whether the head of the model reads the first token of the last layer alone; then no other counts
            there.
        progress: Told after each layer.

    Returns:
        The plan with a scale for each head and unit that it keeps, also of parts that it leaves whole.

    Raises:
        UsageError: If a row is longer than the model takes.
        InputError: If there are no rows, or the model puts out what is not finite.
        CannotApplyError: If the encoder is not understood, its weights are in half precision, or the plan is for other
            layers or widths.
    """
    layers = find_layers(model)
    check_sizes(plan, [(layer.heads, layer.units) for layer in layers])
    if not len(rows):
        raise InputError("there are no rows to fit scales on; give some hundred")
    check_precision(model)
    check_rows(rows, model)
    plan = plan.model_copy(update={"layers": tuple(map(_listed, plan.layers, layers))})
    heads, units = factors(model, plan)
    with evaluating(model), torch.no_grad():
        states = [start(model, layers, batch) for _, batch in batches(rows, collator, batch_size)]
        for index, layer in enumerate(layers):
            first = first_token and index == len(layers) - 1
            for state in states:
                state.run_whole(model, layer)
            roles: tuple[tuple[Role, list[Tensor | None]], ...] = (("attn_out", heads), ("ffn_out", units))
            for role, masks in roles:
                with masked(model, heads, units):
                    masks[index] = _fit(model, layer, role, masks[index], states, first)
            with masked(model, heads, units):
                for state in states:
                    state.advance(model, layer)
            if progress is not None:
                progress(f"{index + 1} of {len(layers)} layers with scales", index + 1, len(layers))
    scaled = (_scaled(kept, *masks) for kept, *masks in zip(plan.layers, heads, units, strict=True))
    return plan.model_copy(update={"layers": tuple(scaled)})


def _listed(kept: LayerPlan, layer: TorchLayer) -> LayerPlan:
    """Return a layer's plan without scales, in which what is left whole is listed."""
    heads = tuple(range(layer.heads)) if kept.heads is None else kept.heads
    units = tuple(range(layer.units)) if kept.units is None else kept.units
    return kept.model_copy(update={"heads": heads, "units": units, "head_scales": None, "unit_scales": None})


def _scaled(kept: LayerPlan, heads: Tensor | None, units: Tensor | None) -> LayerPlan:
    assert heads is not None and units is not None and kept.heads is not None and kept.units is not None
    scales = {
        "head_scales": tuple(heads[list(kept.heads)].tolist()),
        "unit_scales": tuple(units[list(kept.units)].tolist()),
    }
    return kept.model_copy(update=scales)


def _fit(
    model: nn.Module, layer: TorchLayer, role: Role, mask: Tensor | None, states: Sequence[State], first: bool
) -> Tensor:
    """Return the mask of a role with the best scales in the places of its ones; the masks hang on the model."""
    assert mask is not None
    kept = mask.nonzero().flatten()
    size = layer.linears[role].in_features // len(mask)
    columns = (kept[:, None] * size + torch.arange(size)).flatten().to(layer.linears[role].weight.device)
    weight = layer.linears[role].weight[:, columns]
    halves = (_Moments(len(columns), weight.device), _Moments(len(columns), weight.device))
    before = 0
    for state in states:
        seen = state.run_pruned(model, layer)
        missing = state.targets[role] - seen.streams[role]
        for half, moments in enumerate(halves):
            every_other = slice((half + before) % 2, None, 2)  # of all rows, however batches cut them
            real = state.real[every_other]
            real = real[:, :1] if first else real
            tokens = real.shape[1]
            x = seen.inputs[role][every_other, :tokens][real][:, columns]
            moments.add(x, missing[every_other, :tokens][real] @ weight)
        before += len(state.real)
    products = weight.double().T @ weight.double()
    scales = 1 + _solve(halves[0].equations(products, size), halves[1].equations(products, size))
    scaled = mask.clone()
    scaled[kept] = scales.to(mask)
    return scaled


class _Moments:
    """Sums over tokens, float64: of the products of inputs [n, n], and of each input with what it lacks [n]."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.gram = torch.zeros(width, width, dtype=torch.float64, device=device)
        self.pull = torch.zeros(width, dtype=torch.float64, device=device)

    def add(self, x: Tensor, wanted: Tensor) -> None:
        """Add tokens: inputs [tokens, n], and for each the product of its column with what is missing [tokens, n]."""
        self.gram.add_(x.T @ x)
        self.pull.add_((x * wanted).sum(dim=0, dtype=torch.float64))

    def equations(self, products: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return matrix [parts, parts] and right side [parts] of the normal equations, a part being `size` inputs.

        A part adds ``c_k = sum over its inputs i of x_i w_i``, so that ``c_k · c_l`` sums ``x_i x_j (w_i · w_j)``; the
        products of the columns w with each other, [n, n], are given.
        """
        parts = len(self.pull) // size
        matrix = (self.gram * products).view(parts, size, parts, size).sum(dim=(1, 3))
        return matrix, self.pull.view(parts, size).sum(dim=1)


_Equations = tuple[Tensor, Tensor]


def _solve(one: _Equations, other: _Equations) -> Tensor:
    """Return what to add to factors of 1, from the normal equations of two halves of the rows."""
    matrix, pull = one[0] + other[0], one[1] + other[1]
    energy = matrix.diagonal()
    energy = torch.where(energy > 0, energy, 1.0)  # a part that puts out nothing keeps its factor
    missed = [
        sum(_change(_ridged(fitted, ridge * energy / 2), held) for fitted, held in ((one, other), (other, one)))
        for ridge in _RIDGES
    ]
    best = min(range(len(_RIDGES)), key=missed.__getitem__)
    if missed[best] >= 0:
        return torch.zeros_like(pull)
    ridge = _RIDGES[best]
    found = _ridged((matrix, pull), ridge * energy)
    while (1 + found).abs().max() > LARGEST:
        ridge *= 10
        found = _ridged((matrix, pull), ridge * energy)
    return found


def _ridged(equations: _Equations, ridge: Tensor) -> Tensor:
    matrix, pull = equations
    found: Tensor = torch.cholesky_solve(pull[:, None], torch.linalg.cholesky(matrix + ridge.diag()))
    return found[:, 0]


def _change(added: Tensor, equations: _Equations) -> float:
    """Return by how much the squared distance changes when this is added to factors of 1."""
    matrix, pull = equations
    return float(added @ matrix @ added - 2 * added @ pull)
