"""What options alone show to be wrong is told before a model is looked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ffc
from ffc.compiler.library import Library

LIBRARY = Library.default()
FILES = {
    "relu": "trained=gone.npz",
    "prune": "plan=gone.json",
    "prune ": "importance=gone.safetensors heads=0.5",
    "dequantize": "float32=gone.onnx",
}
VALUES = {
    "int8": {"cosine": 1.5, "agreement": -0.1},
    "fp16": {"cosine": -2, "agreement": 2},
    "relu": {"cosine": float("nan"), "agreement": 50},
    "dequantize": {"cosine": 95, "agreement": 1.01},
    "prune": {"heads": 1.5, "ffn": 0},
    "widen": {"noise": -1.0},
    "lower": {"expect": -1},
}
WORK: list[Callable[..., Any]] = [ffc.compile, ffc.explain, ffc.reduce, ffc.lock]


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_there_is_told_before_the_first_pass(name: str, work: Callable[..., Any]) -> None:
    option, _, path = FILES[name].split()[0].partition("=")
    with pytest.raises(ffc.InputError) as caught:
        work("gone.onnx", f"{name.strip()}{{{FILES[name]}}},fuse")
    assert str(caught.value) == (
        f"pass '{name.strip()}': there is no file {path}, which option '{option}' names; correct it"
    )


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, options in VALUES.items() for option in options])
def test_a_value_that_cannot_be_is_told_when_it_is_read(name: str, option: str) -> None:
    value = VALUES[name][option]
    with pytest.raises(ffc.UsageError, match=f"^option '{option}' of pass '{name}' is '{value}' at column .*; wanted: a "):
        ffc.compile("gone.onnx", f"{name}{{{option}={value}}}")
    with pytest.raises(ffc.UsageError, match=f"^option '{option}' of pass '{name}' is '{value}' at column .*; wanted: a "):
        ffc.compile("gone.onnx", name, sets={f"{name}.{option}": str(value)})
    with pytest.raises(ffc.UsageError, match=f"^option '{option}' of pass '{name}' is {value}; wanted: a "):
        ffc.compile("gone.onnx", ["fuse", LIBRARY[name](**{option: value})])


def test_a_role_that_is_none_is_told_when_it_is_read() -> None:
    with pytest.raises(ffc.UsageError, match="int8: rows=ffn_uot names no role; did you mean 'ffn_out'"):
        ffc.compile("gone.onnx", "int8{rows=ffn_uot}")


def test_an_output_that_cannot_be_written_is_told_before_the_model_is_read() -> None:
    with pytest.raises(ffc.UsageError, match="the folder 'gone' of the output does not exist"):
        ffc.compile("gone.onnx", "fuse", out="gone/m.onnx")
