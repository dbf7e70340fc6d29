"""Silence, where libraries remark on what users cannot act upon."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from transformers.utils import logging as transformers_logging

__all__ = ["silenced"]


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silence the warnings, logs and bars of loading and exporting; errors still raise."""
    library: Any = transformers_logging
    disabled, bars = logging.root.manager.disable, library.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if bars:
            library.enable_progress_bar()
