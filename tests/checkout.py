"""This checkout: where it lies, and the scripts of the examples, which are no parts of a package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def load(script: str) -> ModuleType:
    """Return a script as a module, loaded once: `script` is its path below `examples/`, without ``.py``."""
    name = f"ffc_example_{script.replace('/', '_')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{script}.py")
        assert spec and spec.loader, script
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except ImportError:
            del sys.modules[name]  # the next test shall meet the error too, not half a module
            raise
    return sys.modules[name]
