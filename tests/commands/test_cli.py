"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc import cli
from ffc.compiler import pipeline, syntax
from ffc.compiler.proof.contracts import Verdict
from ffc.compiler.reports.report import Report, Step
from ffc.errors import CannotApplyError, FfcError, GateError, InputError, MissingError
from ffc.graph import files
from ffc.graph.cost import Cost
from tests.checkout import ROOT

PLUGIN = '''"""Passes of one's own."""

from dataclasses import dataclass

import ffc


@dataclass(frozen=True)
class Shrink(ffc.Pass):
    """Make it small.

    By a lot.
    """

    name = "shrink"
    contract = ffc.Budget(cosine=0.9)
    needs = ("clean",)
    by: int = ffc.option("how much", default=2)
    where: str = ffc.option("where to")

    def run(self, model, log):
        log.did("shrink")
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FFC_TRACEBACK", raising=False)
    Path("model.onnx").touch()
    Path("mine.py").write_text(PLUGIN)
    return tmp_path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand in for the compiler, and return what it is called with."""
    made: list[dict[str, Any]] = []

    def compile(model: Path, asked: Sequence[ffc.Pass], **rest: Any) -> pipeline.Result:
        passes = syntax.unparse(asked)
        made.append({"model": model, "passes": passes, **rest})
        rest["progress"]("fuse ...")
        size = Cost(3, 1_000_000, 4_000_000, 2_000_000_000, 0)
        proof = Verdict("equal to 0.0001", 1e-7, 1.0, None, 9, "2x7, logits")
        steps = [Step("fuse", "fuse", None, {"Linear": 2}, [], [], [], size, 1.0, proof)]
        report = Report(
            str(model), str(rest["out"]), passes, "cpu", size, 1, 128, steps, proof, "1.23", {"ffc": "0"}, 2.0
        )
        return pipeline.Result(ir.Model(ir.Graph([], [], nodes=[]), ir_version=10), report)

    monkeypatch.setattr(pipeline, "compile", compile)
    return made


SHRINK = '''"""A pass of one's own."""

from dataclasses import dataclass

import ffc


@dataclass(frozen=True)
class Shrink(ffc.Pass):
    """Does nothing."""

    name = "shrink"
    by: int = ffc.option("how much", default=1)

    def run(self, model, log):
        pass
'''


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command that prints one line of error and no result; return its exit code and the line."""
    code = cli.main(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return code, captured.err.removesuffix("\n")


def test_compile_has_defaults(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compile", "model.onnx"]) == 0
    [call] = calls
    del call["progress"]
    assert call == {
        "model": Path("model.onnx"), "passes": "fuse,int8", "out": Path("model.ffc.onnx"), "data": None, "target": "cpu",
        "plugins": (), "sets": (),
    }  # fmt: skip
    captured = capsys.readouterr()
    assert captured.err == "fuse ...\n"
    assert [line.split()[:3] for line in captured.out.splitlines()[2:4]] == [
        ["(as", "it", "came)"],
        ["fuse", "2", "3"],
    ]
    assert "output: model.ffc.onnx" in captured.out


def test_compile_passes_everything_on(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(SHRINK, encoding="utf-8")
    words = "compile model.onnx --passes ./mine.py:Shrink,fuse --set shrink.by=2 --set fuse.expect=3 --plugin mine.py"
    words += " -o x.onnx --json"
    words += " --target portable --data rows.npz --report r.json --report r.md"
    assert cli.main(words.split()) == 0
    [call] = calls
    del call["progress"]
    assert call == {
        "model": Path("model.onnx"), "passes": "shrink{by=2},fuse{expect=3}", "out": Path("x.onnx"), "data": Path("rows.npz"),
        "target": "portable", "plugins": ("mine.py",), "sets": (),
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert json.loads(printed)["format"] == "ffc.report/2"
    assert Path("r.json").read_text() == printed
    assert Path("r.md").read_text().startswith("# ffc compile model.onnx\n")


def test_data_that_is_given_again_is_one_feed_each(calls: list[dict[str, Any]]) -> None:
    assert cli.main("compile model.onnx --data one.npz --data two.npz".split()) == 0
    assert calls[0]["data"] == [Path("one.npz"), Path("two.npz")]
    Path("r.toml").write_text('model = "model.onnx"\ndata = ["one.npz", "two.npz"]\n')
    assert cli.main("compile --recipe r.toml".split()) == 0
    assert calls[1]["data"] == [Path("one.npz"), Path("two.npz")]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("compile model.onnx -o model.onnx", "the output 'model.onnx' is the input; name another file with -o"),
        (
            "compile model.onnx -o ./no/../model.onnx",
            "the output 'no/../model.onnx' is the input; name another file with -o",
        ),
        ("compile model.onnx -o .", "the output 'model.onnx' is the input; name another file with -o"),
        ("compile model.onnx -o no/x.onnx", "the folder 'no' of the output does not exist; create it first"),
        ("compile model.onnx --report r.pdf", "report 'r.pdf' has the suffix '.pdf'; known: .json, .md, .html"),
        ("compile model.onnx -passes fuse", "no such option '-passes'; did you mean '--passes'?"),
        ("compile model.onnx --pases fuse", "no such option '--pases'; did you mean '--passes'?"),
        ("explain", "missing argument 'MODEL'"),
        ("compile model.onnx b", "got unexpected extra argument (b)"),
        (
            "compile model.onnx --passes fuse,int8{skip=head embeddings=true}",
            "got unexpected extra argument (embeddings=true}); quote a pipeline that has braces, as in --passes "
            "'fuse,int8{skip=head}'",
        ),
        ("compil model.onnx", "no such command 'compil'; did you mean 'compile'?"),
        ("study rum", "no such command 'rum'; did you mean 'run'?"),
        ("version", "no such command 'version'; did you mean '--version'?"),
        ("--verzion", "no such option '--verzion'; did you mean '--version'?"),
        ("passes shrnk --plugin mine.py:Shrink", "unknown pass 'shrnk'; did you mean 'shrink'?"),
        ("plan model.onnx --heads 2", "ffc plan needs one of --importance FILE and --by norm"),
        ("plan model.onnx --heads 2 --by norm --importance a", "ffc plan needs one of --importance FILE and --by norm"),
        ("plan model.onnx --by norm", "this would keep everything; say how much to keep by --heads, --ffn or --macs"),
        (
            "plan model.onnx --by norm --macs 0.7 --heads 2",
            "--macs says how much to keep of all together; leave --heads and --ffn out, or --macs",
        ),
        (
            "plan model.onnx --by norm --macs 0.7 --global",
            "--macs chooses among all layers already; leave --global out",
        ),
        (
            "plan model.onnx --by norm --heads 2 --floor 1",
            "--floor is for --global and --macs; otherwise every layer keeps --heads and --ffn",
        ),
        ("plan model.onnx --by norm --macs 1.5", "invalid value for '--macs': '1.5', wanted a number above 0 and up to 1"),
        ("plan model.onnx --by norm --macs nan", "invalid value for '--macs': 'nan', wanted a number above 0 and up to 1"),
        ("plan model.onnx --by norm --macs 0.7 --length 0", "invalid value for '--length': '0', wanted a whole number from 1"),
        (
            "plan model.onnx --by norm --heads two",
            "invalid value for '--heads': 'two', wanted a count such as 6 or a share such as 0.5",
        ),
        (
            "plan model.onnx --by norm --ffn 1.5",
            "invalid value for '--ffn': '1.5', wanted a count such as 6 or a share such as 0.5",
        ),
        (
            "plan model.onnx --by norm --ffn 0",
            "invalid value for '--ffn': '0', wanted a count such as 6 or a share such as 0.5",
        ),
        (
            "plan model.onnx --by norm --ffn 1 -o no/p.json",
            "the folder 'no' of the output does not exist; create it first",
        ),
    ],
)
def test_usage_errors_are_one_line(
    words: str, line: str, calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(capsys, *words.split()) == (2, f"ffc: error: {line}")
    assert not calls


def test_a_malformed_pipeline_points_at_the_column(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = fails(capsys, "compile", "model.onnx", "--plugin", "mine.py", "--passes", "shrink,shrnk")
    assert code == 2
    assert line == "ffc: error: unknown pass 'shrnk' at column 8 of 'shrink,shrnk'; did you mean 'shrink'?"


@pytest.mark.parametrize(
    ("passes", "line"),
    [
        ("int8(skip=head)", "unknown pass 'int8(skip=head)' at column 1 of 'int8(skip=head)'; options stand in braces, in quotes for a shell, as in 'int8{skip=head}'"),
        ("fuse;int8", "unknown pass 'fuse;int8' at column 1 of 'fuse;int8'; passes are separated by commas"),
        ("FUSE,int8", "unknown pass 'FUSE' at column 1 of 'FUSE,int8'; did you mean 'fuse'?"),
        ("fuse int8", "',' is missing at column 6 of 'fuse int8'"),
    ],
)  # fmt: skip
def test_pipelines_written_otherwise(passes: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, "compile", "model.onnx", "--passes", passes) == (2, f"ffc: error: {line}")


@pytest.mark.parametrize("command", ["export folder", "plan model.onnx --by norm --heads 2", "lock model.onnx"])
def test_a_file_is_not_written_where_a_folder_is_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = fails(capsys, *command.split(), "-o", "new/")
    reason = "is named as a folder, and a file is written; leave out the '/'"
    assert (code, line) == (2, f"ffc: error: the output 'new/' {reason}")


@pytest.mark.parametrize(("target", "near"), [("portble", "portable"), ("CPU", "cpu"), ("gpu", "cuda")])
def test_an_unknown_target_offers_the_nearest(target: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = fails(capsys, "compile", "model.onnx", "--target", target)
    assert (code, line) == (2, f"ffc: error: unknown target '{target}'; did you mean '{near}'?")


@pytest.mark.parametrize("command", ["compile", "explain", "print", "plan --by norm --heads 2"])
@pytest.mark.parametrize(
    ("name", "advice"),
    [("model", "did you mean 'model.onnx'?"), ("./modle.onnx", "did you mean 'model.onnx'?"), ("x", "check the path")],
)
def test_a_model_that_does_not_exist_offers_the_nearest(
    command: str, name: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = fails(capsys, *command.split(), name)
    assert (code, line) == (3, f"ffc: error: cannot load {Path(name)}: no such file; {advice}")


def test_a_plugin_that_exits_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    Path("quits.py").write_text("import sys\nsys.exit('enough')\n")
    code, line = fails(capsys, "passes", "--plugin", "quits.py")
    assert (code, line) == (3, "ffc: error: quits.py:2 cannot be loaded: SystemExit: enough")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (GateError("a gate\nfailed"), 1, "a gate failed"),
        (InputError("broken"), 3, "broken"),
        (CannotApplyError("cannot"), 4, "cannot"),
        (MissingError("missing"), 5, "missing"),
        (KeyError("x"), 70, "this is a bug in ffc: KeyError: 'x' (FFC_TRACEBACK=1 shows the traceback)"),
        (FfcError("base"), 70, "this is a bug in ffc: FfcError: base (FFC_TRACEBACK=1 shows the traceback)"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(
    error: Exception, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compile(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "compile", compile)
    assert fails(capsys, "compile", "model.onnx") == (code, f"ffc: error: {line}")


def test_a_bug_shows_its_traceback_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compile(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(pipeline, "compile", compile)
    monkeypatch.setenv("FFC_TRACEBACK", "1")
    assert cli.main(["compile", "model.onnx"]) == 70
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert shown.endswith("ffc: error: this is a bug in ffc: KeyError: 'x' (FFC_TRACEBACK=1 shows the traceback)\n")


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def compile(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "compile", compile)
    assert cli.main(["compile", "model.onnx"]) == 130
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_is_quiet() -> None:
    command = [sys.executable, "-m", "ffc", "passes", "--json"]
    done = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.stdout is not None and done.stderr is not None
    done.stdout.close()
    shown = done.stderr.read()
    done.stderr.close()
    assert (done.wait(), shown) == (141, b"")


def test_passes_lists_name_contract_purpose_and_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["passes", "--plugin", "mine.py"]) == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line.startswith("shrink ")]
    assert [cell.strip() for cell in rows[0] if cell.strip()] == [
        "shrink", "cosine ≥ 0.9", "Make it small.", "mine.py:Shrink"
    ]  # fmt: skip


def test_passes_shows_one_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["passes", "shrink", "--plugin", "mine.py"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "shrink: Make it small.",
        "",
        "By a lot.",
        "",
        "contract: cosine ≥ 0.9",
        "origin: mine.py:Shrink",
        "needs: clean",
        "",
        "options:",
        "  expect (int | None, default none): number of changes this pass must make; any other number is an error",
        "  by (int, default 2): how much",
        "  where (str, required): where to",
    ]


def test_passes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["passes", "shrink", "--plugin", "mine.py", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["options"][2] == {
        "name": "where",
        "type": "str",
        "required": True,
        "default": None,
        "help": "where to",
    }
    assert cli.main(["passes", "--plugin", "mine.py", "--json"]) == 0
    assert shown in json.loads(capsys.readouterr().out)


def test_print_shows_the_model_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 16]))
    weight = ir.Value(name="w", const_value=ir.tensor(np.ones((16, 16), np.float32), name="w"))
    node = ir.node("MatMul", [x, weight])
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", x.type, x.shape
    graph = ir.Graph([x], [node.outputs[0]], nodes=[node], initializers=[weight], opset_imports={"": 23})
    files.save(ir.Model(graph, ir_version=10), "model.onnx")
    assert cli.main(["print", "model.onnx"]) == 0
    whole = capsys.readouterr().out
    assert cli.main(["print", "model.onnx", "--no-weights"]) == 0
    bare = capsys.readouterr().out
    assert "MatMul" in bare
    assert len(bare) < len(whole)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ffc {ffc.__version__}\n"


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert capsys.readouterr().err.startswith("Usage: ffc [OPTIONS] COMMAND [ARGS]...")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ffc.cli import main; code = main(['compile', '--help']);"
        "heavy = {'numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'rich', 'pydantic', 'torch'} & set(sys.modules);"
        "sys.exit(code or ' '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_public_names() -> None:
    assert sorted(ffc.__all__) == [
        "Budget", "CannotApplyError", "Check", "Diff", "Editor", "Equal", "EqualToMasked", "Explanation", "FfcError", "Finding", "Function", "GateError", "InputError",
        "KnownRows", "Log", "Match", "MissingError", "ModelFrom", "Op", "Pass", "Policy", "Reduction", "Report", "Result", "Rule", "Sample", "Survey", "Tensor", "TextRows", "Tried", "UsageError", "__version__",
        "called", "check", "compile", "constant", "diff", "explain", "find_blocks", "function", "load", "lock", "ops", "option", "recipe", "reduce", "rule", "rules", "save",
    ]  # fmt: skip
    for name in ffc.__all__:
        assert getattr(ffc, name) is not None
    assert set(ffc.__all__) <= set(dir(ffc))
    with pytest.raises(AttributeError, match="module 'ffc' has no attribute 'Nothing'"):
        _ = ffc.Nothing  # type: ignore[attr-defined]
