"""The processes that train one model together, as torchrun starts them."""

from __future__ import annotations

from torch import distributed

__all__ = ["leave"]


def leave() -> None:
    """Leave the other processes, if there are any: what is left to do, the first does alone."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
