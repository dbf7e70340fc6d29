"""How sentence-transformers makes one vector of the vectors of a sentence's tokens: its modes of pooling, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["MODES", "OLD_KEYS", "pool"]

_LEAST = 1e-9
"""What stands in for a count of 0, in a row without tokens."""


def _first(tokens: Tensor, mask: Tensor) -> Tensor:
    return _picked(tokens, _start(mask))


def _last(tokens: Tensor, mask: Tensor) -> Tensor:
    return _picked(tokens * mask[..., None], (mask * _places(mask)).amax(dim=1))  # zeros without tokens, here too


def _largest(tokens: Tensor, mask: Tensor) -> Tensor:
    found = torch.where(mask[..., None] > 0, tokens, torch.finfo(tokens.dtype).min).amax(dim=1)
    return found * mask.amax(dim=1, keepdim=True)  # a row without tokens gives zeros, so that what follows is finite


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    return _sum(tokens, mask) / _count(tokens, mask)


def _mean_of_root(tokens: Tensor, mask: Tensor) -> Tensor:
    return _sum(tokens, mask) / _count(tokens, mask).sqrt()


def _weighted_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean with weights 1, 2, 3 ... from the first real token on."""
    return _mean(tokens, mask * (_places(mask) + 1 - _start(mask)[:, None]))


MODES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_of_root,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
"""By name, what makes [B, W] of tokens [B, S, W] and a mask, int64 [B, S] with 1 at real tokens."""

OLD_KEYS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The mode that each key of a config switched on before sentence-transformers 5.4; results are joined in this order."""


def pool(tokens: Tensor, mask: Tensor, modes: Sequence[str]) -> Tensor:
    """Return the results of some modes, joined.

    Args:
        tokens: [B, S, W].
        mask: int64 [B, S], 1 at real tokens.
        modes: Names of `MODES`.

    Returns:
        [B, len(modes) W].
    """
    return torch.cat([MODES[mode](tokens, mask) for mode in modes], dim=-1)


def _places(mask: Tensor) -> Tensor:
    return torch.arange(mask.shape[1], device=mask.device)


def _start(mask: Tensor) -> Tensor:
    """Return the place of the first real token of each row, int64 [B]; 0 where there is none."""
    return mask.to(torch.int32).argmax(dim=1)  # onnxruntime has no such kernel for int64


def _picked(tokens: Tensor, places: Tensor) -> Tensor:
    """Return the token at one place of each row, [B, W]."""
    return tokens.gather(1, places[:, None, None].expand(-1, 1, tokens.shape[-1])).squeeze(1)


def _sum(tokens: Tensor, weights: Tensor) -> Tensor:
    return (tokens * weights[..., None].to(tokens.dtype)).sum(dim=1)


def _count(tokens: Tensor, weights: Tensor) -> Tensor:
    return weights.to(tokens.dtype).sum(dim=1, keepdim=True).clamp(min=_LEAST)
