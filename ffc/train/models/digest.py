"""What tells one set of weights from another."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

__all__ = ["digest"]


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights and buffers: their names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
