"""Training in several processes, as torchrun starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from safetensors.numpy import load_file

from ffc import cli
from tests.train import tiny


def test_two_processes_give_the_model_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    tiny.save_model(tmp_path / "tiny")
    train, validation = (
        tiny.save_rows(tmp_path / "train.tsv", 48, seed=1),
        tiny.save_rows(tmp_path / "val.tsv", 10, seed=2),
    )
    task = ["--task", "text", "--train", str(train), "--validation", str(validation), "--text", "text"]
    teacher, one, two = (str(tmp_path / name) for name in ("teacher", "one", "two"))
    start = ["train", "--model", str(tmp_path / "tiny"), *task, "--max-steps", "3", "-o", teacher]
    assert cli.main(start) == 0
    # 48 rows are whole steps of 8; of a step with fewer, accelerate repeats rows where several processes share it.
    distill = ["distill", "--teacher", teacher, "--layers", "1", "--learning-rate", "2e-3", "--epochs", "2", *task]
    assert cli.main([*distill, "--batch-size", "8", "-o", one]) == 0

    launcher = [sys.executable, *"-m torch.distributed.run --standalone --nproc-per-node 2 -m ffc".split()]
    done = subprocess.run(
        [*launcher, *distill, "--batch-size", "4", "-o", two, "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)  # one process printed, and it alone
    assert (record["processes"], record["steps"]) == (2, 12)
    assert done.stderr.count("48 rows to train on") == 1
    first, second = (load_file(Path(folder) / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    assert max(float(abs(first[name] - second[name]).max()) for name in first) < 1e-5
    start_weights = load_file(Path(teacher) / "model.safetensors")
    assert float(abs(first["classifier.weight"] - start_weights["classifier.weight"]).max()) > 1e-4
