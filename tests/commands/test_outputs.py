"""Every command that writes a file writes what is no plain file too: links, pipes, devices and standard output."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy

import ffc
from ffc import cli
from ffc.ci.lock import lock as locks
from ffc.graph import files
from ffc.pruning import Plan
from tests.graph.files.model_files import model_of
from tests.graphs import encoder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and devices are those of POSIX")


def _model(content: bytes) -> None:
    onnx.checker.check_model(onnx.ModelProto.FromString(content))


def _json(content: bytes) -> None:
    assert json.loads(content)["format"].startswith("ffc.")


def _page(content: bytes) -> None:
    assert content.startswith(b"<!doctype html>") and content.endswith(b"</html>")


def _lock(content: bytes) -> None:
    assert locks.parse(content.decode(), "the lock").making.source == "plain.onnx"


@dataclass(frozen=True)
class Row:
    """A command that writes.

    Attributes:
        words: What is typed; OUT stands for the output.
        sound: Fails unless it is given the whole of what the command writes, and nothing else.
        named: The output; its suffix may say in which form.
        code: The exit code.
        json: Whether it takes --json.
    """

    words: str
    sound: Callable[[bytes], object]
    named: str = "out"
    code: int = 0
    json: bool = True


COMPILE = "compile plain.onnx --passes clean"
TABLE = {
    "compile": Row(f"{COMPILE} -o OUT", _model),
    "report": Row(f"{COMPILE} -o x.onnx --report OUT", _json, "out.json"),
    "recipe": Row("compile --recipe recipe.toml", _model),
    "report of a recipe": Row("compile --recipe report.toml", _json, "out.json"),
    "plan": Row("plan encoder.onnx --by norm --heads 1 -o OUT", Plan.model_validate_json),
    "score": Row("score encoder.onnx --data rows.npz -o OUT", safetensors.numpy.load),
    "diff": Row("diff plain.onnx encoder.onnx -o OUT", _json, "out.json", code=1),
    "lock": Row("lock plain.onnx --as-it-is -o OUT", _lock, json=False),
    "check": Row("check plain.ffc.lock --report OUT", _json, "out.json"),
    "view": Row("view plain.onnx -o OUT", _page, json=False),
}
ROWS = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands read."""
    folder = tmp_path_factory.mktemp("inputs")
    files.save(model_of(), folder / "plain.onnx")
    files.save(encoder(), folder / "encoder.onnx")
    np.savez(folder / "rows.npz", **{str(each.name): np.ones((2, 3), np.int64) for each in encoder().graph.inputs})  # type: ignore[arg-type]
    (folder / "recipe.toml").write_text('model = "plain.onnx"\npasses = "clean"\nout = "out"\n')
    (folder / "report.toml").write_text('model = "plain.onnx"\npasses = "clean"\nreport = "out.json"\n')
    assert cli.main(["lock", str(folder / "plain.onnx"), "--as-it-is"]) == 0
    return folder


@pytest.fixture(autouse=True)
def folder(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in inputs.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(row: Row, *more: str, out: str = "") -> int:
    return cli.main([*(out or row.named if word == "OUT" else word for word in row.words.split()), *more])


def listing(folder: Path) -> list[str]:
    """Return what else than the inputs is there, temporary files among it."""
    return sorted(each.name for each in folder.iterdir() if each.name not in ("x.onnx", "plain.ffc.onnx"))


@pytest.mark.parametrize("kind", ["link", "dangling", "chain"])
@ROWS
def test_links_are_followed_and_stay(row: Row, kind: str, inputs: Path, folder: Path) -> None:
    out, real = Path(row.named), Path("elsewhere/real")
    real.parent.mkdir()
    if kind == "chain":
        Path("elsewhere/next").symlink_to("real")
    out.symlink_to("elsewhere/next" if kind == "chain" else real)
    if kind == "link":
        real.write_bytes(b"what was there before")
        real.chmod(0o604)
    assert run(row) == row.code
    assert out.is_symlink() and real.is_file() and not real.is_symlink()
    row.sound(real.read_bytes())
    assert listing(real.parent) == (["next", "real"] if kind == "chain" else ["real"])
    assert listing(folder) == sorted([*listing(inputs), "elsewhere", row.named])
    assert kind != "link" or stat.S_IMODE(real.stat().st_mode) == 0o604


@ROWS
def test_a_pipe_is_written_into(row: Row) -> None:
    os.mkfifo(row.named)
    found: list[bytes] = []
    reading = threading.Thread(target=lambda: found.append(Path(row.named).read_bytes()), daemon=True)
    reading.start()
    assert run(row) == row.code
    reading.join(10)
    row.sound(*found)
    assert stat.S_ISFIFO(os.lstat(row.named).st_mode)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes devices")
@pytest.mark.parametrize(("device", "full"), [((1, 3), False), ((1, 7), True)], ids=["null", "full"])
@ROWS
def test_a_device_is_written_into(
    row: Row, device: tuple[int, int], full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mknod(row.named, 0o666 | stat.S_IFCHR, os.makedev(*device))
    code = run(row)
    status = os.lstat(row.named)
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(*device)
    if not full:
        assert code == row.code
        return
    line = capsys.readouterr().err.splitlines()[-1]
    assert code in (2, 3) and line.startswith("ffc: error: ") and "No space left on device" in line
    assert not [each for each in Path().iterdir() if each.name.startswith(".")]


@pytest.mark.parametrize("by", ["-", "/dev/stdout", "link"])
@ROWS
def test_standard_output_holds_nothing_else(
    row: Row, by: str, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    if by == "link" or row.named != "out":  # a form needs a suffix
        Path(row.named).symlink_to("/dev/stdout")
        by = row.named
    for recipe in Path().glob("*.toml"):
        recipe.write_text(recipe.read_text().replace('out = "out"', f'out = "{by}"'))
    assert run(row, out=by) == row.code
    found = capsysbinary.readouterr()
    row.sound(found.out)
    assert b"Traceback" not in found.err
    assert not Path("-").exists()


@pytest.mark.parametrize("row", [row for row in TABLE.values() if row.json], ids=[n for n, r in TABLE.items() if r.json])
def test_json_and_an_output_do_not_share_standard_output(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    Path(row.named).symlink_to("/dev/stdout")
    assert run(row, "--json") == 2
    told = capsys.readouterr()
    assert told.out == ""
    line = f"--json is printed to standard output, and the output '{row.named}' goes there; leave one out"
    assert told.err == f"ffc: error: {line}\n"


@pytest.mark.parametrize(
    "row", [row for row in TABLE.values() if row.named == "out"], ids=[n for n, r in TABLE.items() if r.named == "out"]
)
def test_a_file_may_be_called_a_dash(row: Row) -> None:
    recipe = Path("recipe.toml")
    recipe.write_text(recipe.read_text().replace('out = "out"', 'out = "./-"'))
    assert run(row, out="./-") == row.code
    row.sound(Path.cwd().joinpath("-").read_bytes())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            f"{COMPILE} -o x.onnx --report -",
            "report '-' is standard output, which has no suffix to say in which form; --json prints JSON there, or name "
            "a file",
        ),
        (
            "diff plain.onnx encoder.onnx -o -",
            "'-' is standard output, which has no suffix to say in which form; --json prints JSON there, or name a file",
        ),
        (
            "check plain.ffc.lock --report -",
            "report '-' is standard output, which has no suffix to say in which form; --json prints JSON there, or name "
            "a file",
        ),
        (
            "compile --recipe report.toml",
            "report '-' is standard output, which has no suffix to say in which form; --json prints JSON there, or name "
            "a file",
        ),
        (f"{COMPILE} -o - --report -", "'-' and '-' are both standard output; name a file for one of them"),
        (f"{COMPILE} -o - --report r.json", "'-' and 'r.json' are both standard output; name a file for one of them"),
        ("diff plain.onnx encoder.onnx -o r.json -o r.json", "the output 'r.json' is named twice; name another file"),
        ("plan encoder.onnx --by norm --heads 1 -o soft", "the output 'soft' is an input; name another file"),
        (
            "plan encoder.onnx --by norm --heads 1 -o lost",
            "the folder '{absent}' of the output, to which 'lost' links, does not exist; create it first",
        ),
        ("reduce plain.onnx -o -", "a folder cannot be written to standard output; name one with -o, be it './-'"),
        ("train --model x -o -", "a folder cannot be written to standard output; name one with -o, be it './-'"),
        (
            "distill --teacher x --layers 1 -o -",
            "a folder cannot be written to standard output; name one with -o, be it './-'",
        ),
        (
            "train --model x -o loop",
            "the folder 'loop' cannot be written: Too many levels of symbolic links; name another with -o",
        ),
        (
            "reduce plain.onnx -o loop",
            "the folder 'loop' cannot be written: Too many levels of symbolic links; name another with -o",
        ),
        (
            f"{COMPILE} -o loop",
            "the output 'loop' cannot be written: Too many levels of symbolic links; name another file with -o",
        ),
        (
            "train --model x -o new --onnx - --json",
            "--json is printed to standard output, and the output '-' goes there; leave one out",
        ),
    ],
)
def test_what_does_not_go_is_refused(
    words: str, line: str, inputs: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("report.toml").write_text('model = "plain.onnx"\nreport = "-"\n')
    Path("soft").symlink_to("encoder.onnx")
    Path("lost").symlink_to("absent/plan.json")
    Path("r.json").symlink_to("/dev/stdout")
    Path("loop").symlink_to("loop")
    assert cli.main(words.split()) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"ffc: error: {line.format(absent=folder.resolve() / 'absent')}\n")
    assert listing(folder) == sorted([*listing(inputs), "soft", "lost", "r.json", "loop"])


def test_python_means_the_same_by_a_path(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    Path("link").symlink_to("real")
    for place, written in (("-", None), ("./-", "-"), ("link", "real")):
        capsysbinary.readouterr()
        ffc.compile("plain.onnx", "clean", out=place)
        _model(Path.cwd().joinpath(written).read_bytes() if written else capsysbinary.readouterr().out)
    Plan.model_validate_json('{"format": "ffc.plan/1", "layers": [{"heads": [0], "of_heads": 1}]}').save("-")
    Plan.model_validate_json(capsysbinary.readouterr().out)


def test_a_lock_that_is_a_link_is_accepted_where_it_lies(folder: Path) -> None:
    lock, real = Path("plain.ffc.lock"), Path("elsewhere/plain.lock")
    real.parent.mkdir()
    lock.rename(real)
    lock.symlink_to(real)
    before = real.read_bytes()
    files.save(model_of(scale=2.0), "plain.onnx")
    assert cli.main(["check", "plain.ffc.lock", "--accept"]) == 0
    assert lock.is_symlink() and real.read_bytes() != before


def test_a_writable_device_may_lie_in_a_folder_that_takes_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As /dev does, for all but root; what is made beside it would be refused."""
    os.mkfifo("pipe")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    reading = threading.Thread(target=Path("pipe").read_bytes, daemon=True)
    reading.start()
    assert cli.main("plan encoder.onnx --by norm --heads 1 -o pipe".split()) == 0
    reading.join(10)
    assert cli.main("plan encoder.onnx --by norm --heads 1 -o plan.json".split()) == 2
