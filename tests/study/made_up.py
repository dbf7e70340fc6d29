"""A run with numbers that are easy to reckon with."""

from __future__ import annotations

from ffc.runtime.latency import Measurement
from ffc.runtime.machine import Machine
from ffc.study.report.summary import (
    COMPILED,
    EAGER,
    FP32,
    PADDED,
    Form,
    Measurements,
    Run,
    System,
    TaskFacts,
)

LAYERS, HEADS, UNITS = 6, 12, 1536


def form(file: str, accuracy: float, *, bytes: int = 90_000_000) -> Form:
    return Form(file, accuracy, {"accuracy": accuracy}, 0.985, 22_700_000, 1_400_000_000, bytes)


def system(name: str, layers: int, heads: int, units: int, fp32: float, compiled: float) -> System:
    student, _, plan = name.partition("+")
    kind = "teacher" if name == "teacher" else "pruned" if plan else "student"
    return System(
        name=name, kind=kind, student=student, plan=plan, words=f"{layers} layers", weights=f"systems/{name}/model",
        heads=(heads,) * layers, units=(units,) * layers, fp32=form(f"{name}.onnx", fp32),
        compiled=form(f"{name}.ffc.onnx", compiled, bytes=23_000_000), passes="fuse,int8", seconds={"train": 100.0}, seed=0,
    )  # fmt: skip


def measured(seconds: float, joules: float | None = None) -> Measurement:
    return Measurement(seconds, (seconds, 1.1 * seconds, 0.9 * seconds), 1.01 * seconds, joules)


SYSTEMS = (
    system("teacher", 6, 12, 1536, 91.0, 90.9),
    system("small", 3, 12, 1536, 90.2, 90.0),
    system("small+three-quarters", 3, 9, 1152, 89.8, 89.6),
    system("small+third", 3, 8, 768, 89.4, 89.3),
    system("small+quarter", 3, 6, 384, 88.0, 87.4),
    system("tiny", 2, 12, 1536, 88.4, 88.2),
    system("tiny+three-quarters", 2, 9, 1152, 87.9, 87.7),
)
SECONDS = {
    "teacher": {PADDED: 6.0, EAGER: 2.0, FP32: 1.6, COMPILED: 0.8},
    "small": {EAGER: 1.0, FP32: 0.8, COMPILED: 0.4},
    "small+three-quarters": {FP32: 0.64, COMPILED: 0.32},
    "small+third": {FP32: 0.5, COMPILED: 0.25},
    "small+quarter": {FP32: 0.32, COMPILED: 0.16},
    "tiny": {EAGER: 0.7, FP32: 0.55, COMPILED: 0.27},
    "tiny+three-quarters": {FP32: 0.44, COMPILED: 0.22},
}
MACHINE = Machine("Example CPU at 2.5 GHz", ("avx2", "fma"), 4, {"onnxruntime": "1.32.0", "torch": "2.13.0"})
MEASUREMENTS = Measurements(
    queries=100,
    max_length=128,
    dollars_per_hour=0.36,
    systems={
        name: {way: measured(seconds) for way, seconds in ways.items()} for name, ways in SECONDS.items()
    },
)  # fmt: skip
RUN = Run(
    study="sst2.toml",
    task=TaskFacts("sst2", "accuracy", ("negative", "positive"), 44_327, 2_000, 64, "0" * 64),
    budget=2.5,
    chosen="small+third",
    reason="the smallest of those within 2.5 points of the teacher",
    systems=SYSTEMS,
    machine=MACHINE,
    versions={"ffc": "0.1.0", "python": "3.11.9"},
    seconds=4321.0,
    measurements=MEASUREMENTS,
)
