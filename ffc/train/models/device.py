"""Where models run in torch."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

__all__ = ["on_gpu"]

Model = TypeVar("Model", bound=nn.Module)


def on_gpu(model: Model) -> Model:
    """Move a model to the GPU, where there is one, and return it."""
    return model.to("cuda") if torch.cuda.is_available() else model
