"""What kind of machine a measurement was taken on, since another kind can turn its order around."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "machine"]

_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
"""Processor features that decide which kernels the runtimes pick."""

_LIBRARIES = ("onnxruntime", "torch", "transformers")


@dataclass(frozen=True)
class Machine:
    """The class of a machine; nothing in it names one machine or its owner.

    Attributes:
        processor: Model name as the kernel reports it.
        flags: Processor features that decide which kernels the runtimes pick, as far as it has them.
        cores: Cores that this process may run on.
        versions: Version by library, of those that are installed.
    """

    processor: str
    flags: tuple[str, ...]
    cores: int
    versions: Mapping[str, str]

    def __str__(self) -> str:
        """Say it in one line."""
        flags = f" ({' '.join(self.flags)})" if self.flags else ""
        libraries = "".join(f", {name} {version}" for name, version in self.versions.items())
        return f"{self.processor}{flags}, {self.cores} {'core' if self.cores == 1 else 'cores'}{libraries}"


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """Describe this machine; where there is no `cpuinfo` file, the flags stay empty."""
    fields = _first_processor(cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else {}
    present = set(fields.get("flags", fields.get("Features", "")).split())
    found = {name: next(iter(importlib.metadata.Distribution.discover(name=name)), None) for name in _LIBRARIES}
    return Machine(
        processor=fields.get("model name", platform.processor() or platform.machine()),
        flags=tuple(flag for flag in _FLAGS if flag in present),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        versions={name: package.version for name, package in found.items() if package is not None},
    )


def _first_processor(text: str) -> dict[str, str]:
    """Return the fields of the first processor in the text of a `cpuinfo` file."""
    lines = text.split("\n\n", 1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}
