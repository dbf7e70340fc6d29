"""Locks: texts that are the same everywhere, that move little, and that are whole or refused in one line."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ffc.ci.diff.compare import compare
from ffc.ci.lock import check as checks
from ffc.ci.lock import lock as locks
from ffc.ci.matching.snapshot import of_model
from ffc.errors import InputError
from ffc.graph import files
from tests.checkout import ROOT
from tests.ci.lock import small


def lines_of(model: Path, passes: str | None = None) -> list[str]:
    """Return the lines of the lock of a model."""
    return locks.unparse(checks.lock(model, passes)).splitlines()


def moved(before: list[str], after: list[str]) -> list[str]:
    """Return what `git diff` shows of two texts: lines that went and that came."""
    shown = difflib.unified_diff(before, after, lineterm="", n=0)
    return [line for line in shown if line[0] in "+-" and not line.startswith(("+++", "---"))]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the text of the lock of a small encoder as it is."""
    path = small.save(tmp_path_factory.mktemp("locked") / "m.onnx")
    checks.lock(path, None)
    return path.with_name("m.ffc.lock").read_text(encoding="utf-8")


def test_a_lock_is_the_same_in_every_process(tmp_path: Path) -> None:
    path = small.save(tmp_path / "m.onnx")
    runs = []
    for seed in ("0", "1", "2"):
        command = [sys.executable, "-m", "ffc", "lock", str(path), "-o", str(tmp_path / f"{seed}.ffc.lock")]
        there = {**os.environ, "PYTHONHASHSEED": seed}
        runs.append(subprocess.Popen(command, env=there, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    for run in runs:
        run.communicate()
        assert run.returncode == 0
    texts = {(tmp_path / f"{seed}.ffc.lock").read_bytes() for seed in "012"}
    assert len(texts) == 1
    assert str(tmp_path).encode() not in texts.pop()


def test_a_lock_reads_back_as_it_was_written(locked: str) -> None:
    assert locks.unparse(locks.parse(locked, "m")) == locked


@pytest.mark.parametrize("model", ["encoder", "keras"])
def test_the_text_in_a_lock_compares_as_the_model_does(model: str, tmp_path: Path) -> None:
    path = small.save(tmp_path / "m.onnx", layers=2) if model == "encoder" else ROOT / "tests/fixtures/keras_bert.onnx"
    made = checks.lock(path, None, out=tmp_path / "m.ffc.lock")
    form = locks.settled(files.load(path))
    _, changes = compare(made.snapshot("lock"), of_model(form, weights=False))
    assert not changes


def test_a_retrained_model_moves_one_line(tmp_path: Path) -> None:
    before = lines_of(small.save(tmp_path / "m.onnx"), "fuse,int8")
    after = lines_of(small.save(tmp_path / "m.onnx", seed=1), "fuse,int8")
    gone, come = moved(before, after)
    assert gone.startswith("-weights sha256:") and come.startswith("+weights sha256:")


def test_names_and_order_inside_a_model_do_not_show(tmp_path: Path) -> None:
    def rename(model: small.ir.Model) -> None:
        for number, node in enumerate(model.graph):
            node.name = f"other_{number}"

    assert lines_of(small.save(tmp_path / "m.onnx")) == lines_of(small.save(tmp_path / "m.onnx", rename))


@pytest.mark.parametrize(
    ("edit", "head", "graph"),
    [
        # The head says again what the graph is: its digest, and where nodes come the numbers of nodes and of operators.
        (small.change_epsilon, {"structure"}, 1),
        (small.insert("Relu", 5), {"structure", "nodes", "Relu"}, 2),
        (small.insert("Tanh", 5), {"structure", "nodes", "Tanh"}, 2),
        (small.rename_output, {"structure"}, 1),
    ],
)  # fmt: skip
def test_a_change_in_one_of_twelve_layers_moves_few_lines(
    edit: small.Edit, head: set[str], graph: int, tmp_path: Path
) -> None:
    before = lines_of(small.save(tmp_path / "m.onnx", layers=12))
    after = lines_of(small.save(tmp_path / "m.onnx", edit, layers=12))
    place = after.index("ffc.text/1")
    come = {line.split()[0] for line in set(after[:place]) - set(before[: before.index("ffc.text/1")])}
    assert come == head
    found = moved(before[before.index("ffc.text/1") :], after[place:])
    assert len([line for line in found if line[0] == "+"]) == graph
    assert len(moved(before, after)) <= 9


def test_a_compiled_change_in_one_of_two_layers_moves_few_lines(tmp_path: Path) -> None:
    before = lines_of(small.save(tmp_path / "m.onnx", layers=2), "fuse")
    edit = small.insert("Tanh", 1)
    after = lines_of(small.save(tmp_path / "m.onnx", edit, layers=2), "fuse")
    found = moved(before, after)
    assert any("Tanh" in line for line in found) and len(found) <= 10


class TestSketch:
    """How far weights moved, known from two locks alone."""

    @pytest.mark.parametrize("factor", [1 + 1e-4, 1.01, 1.5, -1.0])
    def test_tells_how_far_weights_moved(self, factor: float, tmp_path: Path) -> None:
        models = [small.save(tmp_path / "m.onnx"), small.save(tmp_path / "n.onnx", small.scale_weights(factor))]
        before, after = (checks.lock(model, None).weights for model in models)
        weights = [
            value.const_value.numpy().ravel()
            for value in files.load(models[0]).graph.initializers.values()
            if value.const_value is not None and value.const_value.dtype.is_floating_point()
        ]
        scaled = files.load(models[0]).graph.initializers["layer0.ffn_in.weight"].const_value
        assert scaled is not None
        truth = abs(factor - 1) * np.linalg.norm(scaled.numpy()) / np.linalg.norm(np.concatenate(weights))
        assert before.distance(after) == pytest.approx(float(truth), rel=0.5)

    def test_a_node_that_goes_with_a_weight_moves_nothing_else(self, tmp_path: Path) -> None:
        def drop_bias(model: small.ir.Model) -> None:
            (add,) = (use.node for use in model.graph.initializers["layer0.ffn_out.bias"].uses())
            add.outputs[0].replace_all_uses_with(add.inputs[0] or add.outputs[0])
            model.graph.remove(add, safe=True)

        models = [small.save(tmp_path / name, edit, layers=3) for name, edit in (("m.onnx", None), ("n.onnx", drop_bias))]
        before, after = (checks.lock(model, None).weights for model in models)
        bias = files.load(models[0]).graph.initializers["layer0.ffn_out.bias"].const_value
        assert bias is not None
        assert before.digest != after.digest
        assert before.distance(after) == pytest.approx(np.linalg.norm(bias.numpy()) / before.norm, rel=0.5)


def refused(text: str) -> str:
    """Return the one line by which the text of a lock is refused."""
    with pytest.raises(InputError) as caught:
        locks.parse(text, "m.ffc.lock").snapshot("m.ffc.lock")
    message = str(caught.value)
    assert "\n" not in message and "m.ffc.lock" in message
    return message


def test_a_lock_cut_off_anywhere_is_refused(locked: str) -> None:
    ends = [*range(0, len(locked), 97), len(locked) - 1]
    assert len(ends) > 30
    for end in ends:
        assert re.search("truncated|edited", refused(locked[:end])), end


def test_a_lock_of_a_newer_format_says_so(locked: str) -> None:
    message = refused(locked.replace("ffc.lock/1", "ffc.lock/2", 1))
    assert "format 2" in message and "install a newer ffc" in message


@pytest.mark.parametrize("line", [0, 3, 20, 50])
def test_a_conflict_of_a_merge_is_named(line: int, locked: str) -> None:
    lines = locked.split("\n")
    lines[line : line + 1] = ["<<<<<<< HEAD", lines[line], "=======", lines[line], ">>>>>>> theirs"]
    assert "conflict of a merge" in refused("\n".join(lines))


@pytest.mark.parametrize(
    ("find", "put", "said"),
    [
        (r"^weights .*\n", "", "no line 'weights'"),
        (r"^nodes .*\n", "", "no line 'nodes'"),
        (r"^nodes .*", "nodes many", "broken"),
        (r"^weights .*", "weights none", "weights are"),
        (r"sketch \S+ ", "sketch ", "32 numbers"),
        (r"Softmax\(", "Softmin(", "edited"),
        (r"^ffc.lock/1", "[tool.ffc]", "is no lock"),
    ],
)  # fmt: skip
def test_a_lock_edited_by_hand_is_refused(find: str, put: str, said: str, locked: str) -> None:
    changed = re.sub(find, put, locked, count=1, flags=re.MULTILINE)
    assert changed != locked
    assert said in refused(changed)


@pytest.mark.parametrize("graph", ["%y = Relu(%x", "%y = Relu(%x)", "output %y: f32 = %x", "%y = Add(x; ; )", "  a(", "opset a"])
def test_a_digest_that_fits_does_not_make_text_a_graph(graph: str, locked: str) -> None:
    text = locks.unparse(replace(locks.parse(locked, "m"), graph=f"ffc.text/1\nopset ai.onnx 20\n{graph}\n"))
    assert "is broken" in refused(text)


def test_a_graph_that_is_damaged_anyhow_is_read_or_refused(locked: str) -> None:
    random = np.random.default_rng(0)
    lock = locks.parse(locked, "m")
    refusals = 0
    for _ in range(200):
        lines = lock.graph.split("\n")
        at, other = (int(random.integers(1, len(lines))) for _ in range(2))
        place = int(random.integers(len(lines[at]) + 1))
        sign = str(random.choice(list('%(){}[],;="\\ :#.@9')))
        match int(random.integers(4)):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[other])
            case 2:
                lines[at] = f"  {lines[at]}"
            case _:
                lines[at] = lines[at][:place] + sign + lines[at][place:]
        try:
            replace(lock, graph="\n".join(lines)).snapshot("m")
        except InputError:
            refusals += 1
    assert refusals > 50


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: None, "does not exist; write it with `ffc lock`"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: path.write_bytes(b"ffc.lock/1\n\xff"), "cannot be read"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_text_is_refused(write: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.ffc.lock"
    write(path)
    with pytest.raises(InputError, match=re.escape(said)):
        locks.load(path)
