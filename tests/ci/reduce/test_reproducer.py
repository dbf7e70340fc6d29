"""A reproducer fails in a fresh process as the whole model did, wherever it is carried, and is written whole or not at all."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.ci.reduce import reduce
from ffc.ci.reduce.cases.conditions import Command
from ffc.graph import files
from tests.ci.reduce import planted
from tests.graphs import encoder

Reproduce = Callable[[Path], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def reproduce(tmp_path: Path) -> Reproduce:
    """Return a function that carries a folder elsewhere and runs its script from there."""

    def run(folder: Path) -> subprocess.CompletedProcess[str]:
        elsewhere = tmp_path / "elsewhere"
        shutil.move(folder, elsewhere / "reduced")
        command = [sys.executable, "-B", "reduced/reproduce.py"]
        return subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)

    (tmp_path / "elsewhere").mkdir()
    return run


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the reproducer of a pass that crashes."""
    folder = tmp_path_factory.mktemp("crash")
    found = reduce(planted.gelu(), "crash", plugins=[planted.plugin(folder)], out=folder / "out")
    assert found.reproduced is True
    return folder / "out"


@pytest.fixture
def crashing(crash: Path, tmp_path: Path) -> Path:
    """Return a copy of that."""
    return shutil.copytree(crash, tmp_path / "out")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return the path of a model of two nodes."""
    files.save(planted.gelu(), tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def test_a_folder_holds_what_it_takes(crashing: Path) -> None:
    assert {file.name for file in crashing.iterdir()} == {
        "README.md",
        "inputs.npz",
        "mine.py",
        "model.onnx",
        "reproduce.py",
    }


def test_no_file_names_a_place_of_this_machine(crashing: Path, tmp_path: Path) -> None:
    for file in crashing.iterdir():
        assert str(tmp_path.parent).encode() not in file.read_bytes(), file


def test_the_inputs_are_those_of_the_model(crashing: Path) -> None:
    model = files.load(crashing / "model.onnx")
    with np.load(crashing / "inputs.npz") as inputs:
        assert sorted(inputs) == sorted(str(value.name) for value in model.graph.inputs)


def test_a_crash_crashes_again(crashing: Path, reproduce: Reproduce) -> None:
    done = reproduce(crashing)
    assert (done.returncode, done.stdout) == (1, "the compile ends by: SIGSEGV\n")


def test_a_fault_that_is_gone_is_told(crashing: Path, reproduce: Reproduce) -> None:
    files.save(without_gelu(), crashing / "model.onnx")
    done = reproduce(crashing)
    assert (done.returncode, done.stdout) == (0, "the compile ends by: exit 0\n")


def without_gelu() -> ir.Model:
    model = planted.gelu()
    for node in model.graph:
        node.op_type = "Relu"
    return model


def test_a_command_is_run_on_the_model_with_its_script_brought_along(
    tmp_path: Path, small: Path, reproduce: Reproduce
) -> None:
    check = tmp_path / "check.py"
    check.write_text("import sys\nsys.exit(b'Gelu' not in open(sys.argv[1], 'rb').read())\n", encoding="utf-8")
    found = reduce(small, when=f"{sys.executable} {check} {{model}}", out=tmp_path / "out")
    assert ([node.op_type for node in found.model.graph], found.reproduced) == (["Gelu"], True)
    check.unlink()
    done = reproduce(tmp_path / "out")
    assert done.returncode == 1 and "shows the fault" in done.stdout


def test_a_command_can_take_inputs_and_passes(tmp_path: Path, small: Path) -> None:
    check = tmp_path / "check.py"
    check.write_text(
        "import sys, numpy\nassert 'clean' in sys.argv[3].split(',')\nassert len(numpy.load(sys.argv[2])) == 1\n",
        encoding="utf-8",
    )
    when = f"{sys.executable} {check} {{model}} {{inputs}} {{passes}}"
    found = reduce(small, "fuse,clean,int8", when=when, out=tmp_path / "out")
    assert (found.pipeline, found.nodes, found.reproduced) == ("clean", 1, True)


def test_a_command_that_runs_too_long_is_stopped_with_what_it_started(tmp_path: Path, small: Path) -> None:
    script = tmp_path / "slow.sh"
    script.write_text("#!/bin/sh\nsleep 600 &\nwait\n", encoding="utf-8")
    script.chmod(0o755)
    with pytest.raises(ffc.CannotApplyError, match=r"does not end within 0\.5 s"):
        reduce(small, when=f"{script} {{model}}", timeout=0.5)


def test_a_file_that_an_option_names_comes_along(tmp_path: Path) -> None:
    (tmp_path / "plan.txt").write_text("a plan", encoding="utf-8")
    passes = f"follow{{plan={tmp_path / 'plan.txt'}}}"
    found = reduce(planted.gelu(), passes, plugins=[planted.plugin(tmp_path)], out=tmp_path / "out")
    assert found.reproduced is True
    assert (tmp_path / "out" / "plan.txt").read_text(encoding="utf-8") == "a plan"
    assert "follow{plan=plan.txt}" in (tmp_path / "out" / "reproduce.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("there", [False, True])
def test_a_link_to_a_folder_is_followed(tmp_path: Path, small: Path, there: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    if there:
        (tmp_path / "elsewhere" / "real").mkdir()
    (tmp_path / "out").symlink_to("elsewhere/real")
    reduce(small, when=lambda model: True, out=tmp_path / "out")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "elsewhere" / "real" / "model.onnx").is_file()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["elsewhere", "out", "small.onnx"]


def test_standard_output_is_no_folder(small: Path) -> None:
    with pytest.raises(ffc.UsageError, match="a folder cannot be written to standard output"):
        reduce(small, when=lambda model: True, out="-")


def test_names_of_a_model_are_no_markup_in_the_readme(tmp_path: Path) -> None:
    model = planted.gelu()
    model.graph.inputs[0].name = "x```\n<img src=x>\n```"
    reduce(model, when=lambda model: any(node.op_type == "Gelu" for node in model.graph), out=tmp_path / "out")
    lines = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").splitlines()
    fences = [line for line in lines if line.startswith("```")]
    assert len(fences) % 2 == 0
    assert not any(line.lstrip().startswith("<img") for line in lines)


def test_a_pass_of_no_file_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    class Local(ffc.Pass):
        name = "local"

        def run(self, model: object, log: object) -> None:
            raise ValueError

    with pytest.raises(ffc.UsageError, match="pass 'local' cannot be brought along"):
        reduce(planted.gelu(), [Local()], out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["mkdir", "save", "savez", "replace"])
def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ffc.ci.reduce import reproducer

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    home = {"mkdir": Path, "save": files, "savez": reproducer.np, "replace": reproducer.os}[step]
    monkeypatch.setattr(home, step, full)
    with pytest.raises(ffc.InputError, match="No space left on device; nothing was written"):
        reduce(planted.gelu(), when=lambda model: True, out=tmp_path / "out")
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ffc.UsageError, match="is there already; remove it, or name another folder with -o"):
        reduce(planted.gelu(), "clean", out=tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("check.py", "has no {model}; write it where the command takes the model's path"),
        ("check.py {model} {input}", "has {input}; known are {model}, {inputs} and {passes}"),
        ("check.py '{model}", "is no command: no closing quotation"),
        ("", "has no {model}"),
    ],
)
def test_a_malformed_command_is_refused(text: str, said: str) -> None:
    with pytest.raises(ffc.UsageError) as caught:
        Command.parse(text, 1)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_pipeline_that_a_command_does_not_take_is_refused() -> None:
    with pytest.raises(ffc.UsageError, match="a pipeline has no effect with --when"):
        reduce(encoder(), "fuse", when="check {model}")


def test_a_program_that_is_not_there_is_told() -> None:
    with pytest.raises(ffc.MissingError, match="cannot run 'no-such-program' of --when: No such file"):
        reduce(planted.gelu(), when="no-such-program {model}")
