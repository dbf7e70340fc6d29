"""Say what kind of machine a measurement was taken on, since another kind can turn its order around."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
"""Processor features that decide which int8 and bf16 kernels onnxruntime picks."""


@dataclass(frozen=True)
class Machine:
    """The class of a machine: nothing in it names one machine or its owner.

    Attributes:
        processor: Model name as the kernel reports it.
        flags: Those of `FLAGS` that the processor has.
        cores: Cores this process may run on.
        threads: Threads that each session was given.
        onnxruntime: Version of the runtime.
    """

    processor: str
    flags: tuple[str, ...]
    cores: int
    threads: int
    onnxruntime: str


def machine(threads: int, cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """Describe this machine; where there is no `cpuinfo` file, the processor's flags stay empty."""
    fields = first_processor(cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else {}
    present = set(fields.get("flags", fields.get("Features", "")).split())
    return Machine(
        processor=fields.get("model name", platform.processor() or platform.machine()),
        flags=tuple(flag for flag in FLAGS if flag in present),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=threads,
        onnxruntime=ort.__version__,
    )


def first_processor(text: str) -> dict[str, str]:
    """Return the fields of the first processor in the text of a `cpuinfo` file."""
    lines = text.split("\n\n", 1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}
