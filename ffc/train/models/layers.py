"""The layers of an encoder in torch, and in each the Linears by role and the number of heads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from ffc.errors import CannotApplyError

__all__ = ["HEAD_COUNTS", "ROLES", "TorchLayer", "find_layers"]

ROLES = ("q", "k", "v", "attn_out", "ffn_in", "ffn_out")
"""What a Linear of an encoder layer is for."""

HEAD_COUNTS = ("num_attention_heads", "n_heads", "num_heads")
"""Attributes under which attention modules keep their number of heads."""

_HEAD_SIZES = ("attention_head_size", "head_dim")
_NAMES = {
    "q": r"(query|query_proj|q|q_lin|q_proj)",
    "k": r"(key|key_proj|k|k_lin|k_proj)",
    "v": r"(value|value_proj|v|v_lin|v_proj)",
    "attn_out": r"(attention\.output\.dense|o|out_lin|o_proj|out_proj)",
    "ffn_in": r"(intermediate\.dense|lin1|fc1|linear1)",
    "ffn_out": r"((?<!attention\.)output\.dense|lin2|fc2|linear2)",
    "positions": r"(pos_key_proj|pos_query_proj)",  # DeBERTa: what positions ask and offer, by head
}
_PATTERNS = {role: re.compile(rf"(.*\.)?{names}") for role, names in _NAMES.items()}


@dataclass(frozen=True, eq=False)
class TorchLayer:
    """One encoder layer of a torch module.

    Attributes:
        index: Its number, from 0.
        name: Its module path, such as ``bert.encoder.layer.0``.
        linears: Its Linears by role: ``q``, ``k``, ``v`` [W -> heads * size], ``attn_out`` [heads * size -> W],
            ``ffn_in`` [W -> units], ``ffn_out`` [units -> W].
        names: The module paths of these, by role.
        heads: Number of heads that it has now.
        head_size: Width of one head.
        attention: The module that holds the number of heads.
        positions: Further Linears whose outputs are split by heads, by module path: the positions of DeBERTa.
    """

    index: int
    name: str
    linears: Mapping[str, nn.Linear]
    names: Mapping[str, str]
    heads: int
    head_size: int
    attention: nn.Module
    positions: Mapping[str, nn.Linear] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """Number of feed-forward units that it has now."""
        return self.linears["ffn_in"].out_features

    def matrix(self, role: str) -> np.ndarray:
        """Return the weight of a role as [in, out] float32, as its ONNX export has it."""
        matrix: np.ndarray = self.linears[role].weight.detach().float().cpu().numpy().T
        return matrix


def find_layers(model: nn.Module) -> tuple[TorchLayer, ...]:
    """Find the encoder layers of a model, however deep it wraps them.

    A layer is an entry of a `ModuleList` in which every role is played by exactly one Linear, by its name and its
    shape, and no other parameter is bound to the number of heads or units.

    Args:
        model: An encoder, with or without a head.

    Returns:
        Its layers in the order in which data flow.

    Raises:
        CannotApplyError: If there are none, or several encoders, or layers share weights; the message names the module
            that came nearest to a layer and the condition that it failed.
    """
    lists = {name: list(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    found: dict[str, tuple[TorchLayer, ...]] = {}
    misses: list[_NotALayer] = []
    for name, entries in lists.items():
        try:
            if entries:
                found[name] = tuple(_layer(index, f"{name}.{index}", entry) for index, entry in enumerate(entries))
        except _NotALayer as miss:
            stated = _stated_layers(model, name) or 0
            shared = f"{stated} layers share the weights of {len(entries)}" if stated > len(entries) else ""
            misses.append(_NotALayer(name, shared, miss.roles) if shared else miss)
    # A group of layers looks like a layer where it holds but one; what it holds is the layer.
    inner = [name for name in found if not any(other.startswith(f"{name}.") for other in found)]
    if not inner:
        nearest = max(misses, key=lambda miss: miss.roles, default=None)
        why = f"the nearest is {nearest}" if nearest and nearest.roles else "no ModuleList holds attention in Linears"
        raise CannotApplyError(f"no encoder layers were found in {type(model).__name__}: {why}")
    if len(inner) > 1:
        raise CannotApplyError(
            f"{type(model).__name__} has several encoders, at {' and '.join(map(repr, inner))}; give one of them"
        )
    layers = found[inner[0]]
    _check_apart(model, inner[0], layers)
    return layers


class _NotALayer(Exception):
    """Why a module is no layer, and how many roles were found in it all the same."""

    def __init__(self, name: str, why: str, roles: int) -> None:
        super().__init__(f"'{name}': {why}")
        self.roles = roles


def _layer(index: int, name: str, module: nn.Module) -> TorchLayer:
    """Read one layer; `_NotALayer` says why it is none, or one that is not understood."""
    linears = {path: part for path, part in module.named_modules() if isinstance(part, nn.Linear)}
    candidates = {role: [path for path in linears if _PATTERNS[role].fullmatch(path)] for role in _NAMES}
    count = sum(bool(candidates[role]) for role in ROLES)
    for role in ROLES:
        if len(candidates[role]) != 1:
            there = " and ".join(candidates[role]) or f"none among {', '.join(linears) or 'its modules'}"
            raise _NotALayer(name, f"one Linear is expected as {role}, there is {there}", count)
    paths = {role: candidates[role][0] for role in ROLES}
    known = {*paths.values(), *candidates["positions"]}
    if strange := [path for path in linears if path not in known]:
        raise _NotALayer(name, f"what its Linear '{strange[0]}' does is not known (a gate is not supported)", count)
    holder = paths["q"].rpartition(".")[0]
    attention = module.get_submodule(holder)
    parts = {role: linears[path] for role, path in paths.items()}
    positions = {f"{name}.{path}": linears[path] for path in candidates["positions"]}
    if why := _obstacle(module, attention, [*parts.values(), *positions.values()]):
        raise _NotALayer(name, why, count)
    heads, size = _heads(attention, parts["q"])
    if why := _misfit(parts, heads * size) or _unfit_positions(positions, heads * size):
        raise _NotALayer(name, why, count)
    names = {role: f"{name}.{path}" for role, path in paths.items()}
    return TorchLayer(index, name, parts, names, heads, size, attention, positions)


def _heads(attention: nn.Module, q: nn.Linear) -> tuple[int, int]:
    """Return number and size of the heads as the attention module states them; 0 and 0 where it does not."""
    heads = next((value for name in HEAD_COUNTS if isinstance(value := getattr(attention, name, None), int)), 0)
    if heads < 1:
        return 0, 0
    stated = (value for name in _HEAD_SIZES if isinstance(value := getattr(attention, name, None), int))
    return heads, next(stated, q.out_features // heads)


def _misfit(parts: Mapping[str, nn.Linear], width: int) -> str:
    """Say which Linear does not have the shape that its role needs, or nothing."""
    if not width:
        return f"its attention states no number of heads ({', '.join(HEAD_COUNTS)})"
    outer, units = parts["q"].in_features, parts["ffn_in"].out_features
    inward, outward = (outer, width), (width, outer)
    wanted = {"q": inward, "k": inward, "v": inward, "attn_out": outward}
    wanted |= {"ffn_in": (outer, units), "ffn_out": (units, outer)}
    for role, (inner, out) in wanted.items():
        linear = parts[role]
        if (linear.in_features, linear.out_features) != (inner, out):
            return f"its {role} is {linear.in_features} -> {linear.out_features}, expected {inner} -> {out}"
    return ""


def _unfit_positions(positions: Mapping[str, nn.Linear], width: int) -> str:
    unfit = (path for path, linear in positions.items() if linear.out_features != width)
    return next((f"'{path}' does not give {width} values, as the heads need" for path in unfit), "")


def _obstacle(module: nn.Module, attention: nn.Module, linears: Sequence[nn.Linear]) -> str:
    """Say which parameter might be bound to the number of heads or units and is not understood, or nothing."""
    known = {id(parameter) for linear in linears for parameter in linear.parameters(recurse=False)}
    for name, parameter in _strangers(attention, known):
        return f"its attention has a parameter '{name}' {list(parameter.shape)} that is not understood"
    outer = linears[0].in_features
    for name, parameter in _strangers(module, known):
        if tuple(parameter.shape) != (outer,):  # norms and scales of the residual stream have this shape
            return f"its parameter '{name}' {list(parameter.shape)} is not understood"
    return ""


def _strangers(module: nn.Module, known: set[int]) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in module.named_parameters() if id(parameter) not in known)


def _check_apart(model: nn.Module, name: str, layers: Sequence[TorchLayer]) -> None:
    """Check that each layer has weights of its own: otherwise cutting one would cut others."""
    refused = f"the layers at '{name}' of {type(model).__name__} share weights"
    weights = [linear.weight for layer in layers for linear in layer.linears.values()]
    if len({id(weight) for weight in weights}) != len(weights):
        raise CannotApplyError(f"{refused}: a weight plays several roles; each layer needs its own")
    stated = _stated_layers(model, name)
    if stated is not None and stated != len(layers):
        raise CannotApplyError(
            f"{refused} or are not all: {len(layers)} found and the config states {stated}; each layer needs its own"
        )


def _stated_layers(model: nn.Module, name: str) -> int | None:
    """Return the number of layers in the config nearest above a module, or None."""
    while name:
        name = name.rpartition(".")[0]
        config = getattr(model.get_submodule(name), "config", None)
        count = getattr(config, "num_hidden_layers", None)
        if isinstance(count, int):
            return count
    return None
