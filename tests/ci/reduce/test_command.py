"""The command ``ffc reduce``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ffc.commands.reduce import reduce
from ffc.errors import CannotApplyError, FfcError, InputError, UsageError
from ffc.graph import files
from tests.ci.reduce import planted


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    files.save(planted.gelu(), "model.onnx")
    planted.plugin(tmp_path)
    return tmp_path


def invoke(*words: str) -> tuple[str, str]:
    """Run the command and return what it says on stdout and stderr."""
    result = CliRunner().invoke(reduce, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def refusal(*words: str) -> FfcError:
    """Run the command and return the error that it raises, one line of which `ffc` makes."""
    result = CliRunner().invoke(reduce, list(words))
    assert isinstance(result.exception, FfcError), result.output
    assert "\n" not in str(result.exception)
    return result.exception


def test_it_writes_a_folder_and_tells_how_far_it_got() -> None:
    stdout, stderr = invoke("model.onnx", "--passes", "clean,crash", "--plugin", "mine.py")
    assert stdout.startswith("model.reduced: 1 of 2 nodes with 'crash', ")
    assert "SIGSEGV in crash: native code ends the process" in stderr.splitlines()
    assert "1 nodes, 0 bytes of weights, 'crash'" in stderr
    assert Path("model.reduced/reproduce.py").is_file()


def test_what_it_found_comes_as_json_too() -> None:
    stdout, _ = invoke("model.onnx", "--passes", "crash", "--plugin", "mine.py", "-o", "out", "--json")
    found = json.loads(stdout)
    assert found["nodes"] == {"before": 2, "after": 1}
    assert found["failure"]["kind"] == "SIGSEGV" and found["failure"]["pass"] == "crash"
    assert found["reproduced"] is True and found["folder"] == "out"


def test_options_are_those_of_compile() -> None:
    words = ("--passes", "clean", "--set", "clean.expect=1000", "--target", "portable", "-o", "out")
    invoke("model.onnx", *words)
    script = Path("out/reproduce.py").read_text(encoding="utf-8")
    assert "'clean{expect=1000}', target='portable'" in script


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (("model.onnx", "--passes", "clean"), CannotApplyError, "nothing to reduce"),
        (("model.onnx", "--when", "check.py"), UsageError, "has no {model}"),
        (("model.onnx", "--passes", "clean", "--when", "check {model}"), UsageError, "no effect with --when"),
        (("model.onnx", "--when", "false {model}"), CannotApplyError, "and it exits with status 1"),
        (("modle.onnx",), InputError, "did you mean 'model.onnx'?"),
        (("mine.py",), InputError, "truncated or not an ONNX model"),
        (("model.onnx", "-o", "no/out"), UsageError, "does not exist; create it first"),
    ],
)
def test_what_cannot_be_reduced_is_refused_in_one_line(words: tuple[str, ...], kind: type[FfcError], said: str) -> None:
    before = sorted(Path().rglob("*"))
    error = refusal(*words)
    assert isinstance(error, kind) and said in str(error)
    assert sorted(Path().rglob("*")) == before
