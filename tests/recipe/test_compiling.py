"""Recipes: what a file says, where it is wrong, and what the command line puts in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ffc
from ffc import cli, recipe
from ffc.compiler import pipeline, syntax
from ffc.compiler.library import Library
from ffc.compiler.reports.report import from_json
from ffc.errors import InputError, UsageError
from tests.graphs import encoder, feeds, masks

PLUGIN = '''"""A pass of one's own."""

from dataclasses import dataclass
from pathlib import Path

import ffc


@dataclass(frozen=True)
class Mine(ffc.Pass):
    """Does nothing."""

    name = "mine"
    table: Path | None = ffc.option("a file", default=None)

    def run(self, model, log):
        pass
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder: ``work`` with a model and a recipe's folder ``deep`` in it."""
    work = tmp_path / "work"
    (work / "deep").mkdir(parents=True)
    monkeypatch.chdir(work)
    for path in ("model.onnx", "other.onnx", "deep/model.onnx"):
        Path(path).touch()
    Path("deep/mine.py").write_text(PLUGIN)
    return work


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand in for the compiler, and return what it is called with."""
    made: list[dict[str, Any]] = []

    def compile(model: Path, passes: Sequence[ffc.Pass], **rest: Any) -> pipeline.Result:
        made.append({"model": model, "passes": syntax.unparse(passes), **rest})
        raise ffc.GateError("enough")

    monkeypatch.setattr(pipeline, "compile", compile)
    return made


def write(path: str, text: str) -> Path:
    Path(path).write_text(text)
    return Path(path)


def test_an_empty_recipe_has_the_defaults() -> None:
    assert recipe.load(write("r.toml", "")) == recipe.Recipe(source="r.toml")
    assert recipe.Recipe().output is None


def test_every_key_is_read_and_paths_are_those_of_the_recipe() -> None:
    text = """
    model = "model.onnx"
    out = "small.onnx"
    passes = ["prune", "int8{skip=head}", "mine{table=t.txt}"]
    target = "portable"
    data = "rows.npz"
    report = ["r.html", "r.json"]
    plugins = "mine.py"

    [options.prune]
    plan = "plan.json"

    [options.int8]
    skip = ["ffn_out", "a b"]
    embeddings = true
    cosine = 0.97
    """
    library = Library.default(["deep/mine.py"])
    passes = 'prune{plan=deep/plan.json},int8{skip=ffn_out,"a b" embeddings=true cosine=0.97},mine{table=deep/t.txt}'
    assert recipe.load(write("deep/r.toml", text)) == recipe.Recipe(
        source="deep/r.toml",
        model=Path("deep/model.onnx"),
        out=Path("deep/small.onnx"),
        passes=tuple(syntax.parse(passes, library)),
        target="portable",
        data=(Path("deep/rows.npz"),),
        reports=(Path("deep/r.html"), Path("deep/r.json")),
        plugins=("deep/mine.py",),
    )


def test_a_text_in_options_is_read_as_by_set() -> None:
    text = 'passes = "int8,prune{by=norm heads=2}"\n[options]\nint8.skip = "head,ffn_out"\nprune.heads = 0.5\n'
    found = syntax.unparse(recipe.load(write("r.toml", text)).passes)
    assert found == "int8{skip=head,ffn_out},prune{heads=0.5 by=norm}"


def test_a_file_named_in_the_pipeline_is_one_beside_the_recipe() -> None:
    found = recipe.load(write("deep/r.toml", 'passes = "fuse,./mine.py:Mine"'))
    assert (syntax.unparse(found.passes), found.plugins) == ("fuse,mine", ("deep/mine.py:Mine",))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('passses = "fuse"', "r.toml:1: unknown key 'passses'; did you mean 'passes'?"),
        ('model = "m"\n\n[optoins.int8]\nskip = "head"', "r.toml:3: unknown key 'optoins'; did you mean 'options'?"),
        ("passes = 3", "r.toml:1: 'passes' is 3, wanted a pipeline such as 'fuse,int8', or a list of its passes"),
        ("\nmodel = true", "r.toml:2: 'model' is True, wanted a path"),
        ('model = ""', "r.toml:1: 'model' is '', wanted a path"),
        ("report = [1]", "r.toml:1: 'report' is [1], wanted a path or a list of paths"),
        ("options = 1", "r.toml:1: 'options' is 1, wanted a table for each pass with options, such as [options.int8]"),
        ("[options]\nint8 = 1", "r.toml:2: 'options.int8' is 1, wanted a table for each pass with options, such as [options.int8]"),
        (
            "[options.int8]\ncosine = 1979-05-27",
            "r.toml:2: 'options.int8.cosine' is datetime.date(1979, 5, 27), wanted a number, a text, true or false, or a list of these",
        ),
        ('passes = "fuze"', "r.toml: unknown pass 'fuze' at column 1 of 'fuze'; did you mean 'fuse'?"),
        ("[options.int8]\ncosin = 1", "r.toml: unknown option 'cosin' of pass 'int8' at column 6 of 'int8.cosin=1'; did you mean 'cosine'?"),
        ("[options.prune]\nby = 1", "r.toml: pass 'prune' is not in the pipeline at column 1 of 'prune.by=1'; known: fuse, int8"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_recipe_is_one_line(text: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe.load(write("r.toml", text))
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"model = \n", "r.toml:1:9: not TOML: invalid value"),
        (b'model = "m"\nmodel = "n"\n', "r.toml:2:12: not TOML: cannot overwrite a value"),
        (b"a = '\xff'", "r.toml is not TOML: it is not text in UTF-8"),
        (b"a = " + b"[" * 5000, "r.toml: it is nested too deep"),
        (b'plugins = "no.py"', "the file 'no.py' of pass 'no.py' does not exist"),
    ],
)
def test_files_that_are_no_recipes(content: bytes, line: str) -> None:
    Path("r.toml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        recipe.load("r.toml")
    assert str(caught.value) == line


def test_a_recipe_that_does_not_exist() -> None:
    with pytest.raises(InputError) as caught:
        recipe.load("no.toml")
    assert str(caught.value) == "cannot read no.toml: No such file or directory"


def test_the_recipe_of_a_project_is_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    write("../pyproject.toml", '[tool.ffc]\nmodel = "far.onnx"\n')
    write("pyproject.toml", '[project]\nname = "ffc-user"\n')
    write("deep/pyproject.toml", '[tool.ffc]\npasses = "fuse"\n')
    found = recipe.find()
    assert found is not None
    assert (found.source, found.model) == ("[tool.ffc] of ../pyproject.toml", Path("../far.onnx"))
    deep = recipe.find("deep")
    assert deep is not None
    fuse = tuple(syntax.parse("fuse", Library.default()))
    assert (deep.source, deep.passes) == ("[tool.ffc] of deep/pyproject.toml", fuse)
    monkeypatch.chdir("deep")
    assert recipe.find() == recipe.Recipe(source="[tool.ffc] of pyproject.toml", passes=fuse)


def test_a_project_without_a_recipe() -> None:
    write("pyproject.toml", "[tool.other\n")  # broken, and nothing to do with ffc
    assert recipe.find() is None


@pytest.mark.parametrize(
    ("text", "error", "line"),
    [
        ("\n[tool.ffc]\nout = 1", UsageError, "pyproject.toml:3: 'out' is 1, wanted a path"),
        ("[tool]\nffc = 1", UsageError, "pyproject.toml:2: 'tool.ffc' is 1, wanted a table"),
        ('out = 1\n[tool.ffc]\nout = "a"\nx = 1', UsageError, "pyproject.toml:4: unknown key 'x'; known: data, max_length, model, options, out, passes, plugins, report, rows, target, text, tokenizer"),
        ("[tool.ffc\n", InputError, "pyproject.toml:1:10: not TOML: expected ']' at the end of a table declaration"),
        ('[tool.ffc]\npasses = "x"', UsageError, "[tool.ffc] of pyproject.toml: unknown pass 'x' at column 1 of 'x'; known: "),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_project(text: str, error: type[Exception], line: str) -> None:
    write("pyproject.toml", text)
    with pytest.raises(error) as caught:
        recipe.find()
    assert str(caught.value).startswith(line)


def test_output_and_reports_beside_a_model_are_for_that_one_alone() -> None:
    own = recipe.Recipe(model=Path("model.onnx"), out=Path("small.onnx"), reports=(Path("r.md"),))
    assert recipe.changed(own, model=Path("./deep/../model.onnx")).out == Path("small.onnx")
    other = recipe.changed(own, model=Path("other.onnx"))
    assert (other.output, other.reports) == (Path("other.ffc.onnx"), ())
    free = recipe.Recipe(out=Path("small.onnx"))
    assert recipe.changed(free, model=Path("other.onnx")).output == Path("small.onnx")


def run(
    capsys: pytest.CaptureFixture[str], calls: list[dict[str, Any]], *words: str
) -> tuple[dict[str, Any], list[str]]:
    """Run a compile up to the compiler; return what that was asked for, and the lines on stderr before its answer."""
    assert cli.main(["compile", *words]) == 1
    [call] = calls
    del call["progress"]
    lines = capsys.readouterr().err.splitlines()
    assert lines.pop() == "ffc: error: enough"
    return call, lines


WHOLE = """
model = "model.onnx"
out = "small.onnx"
passes = "fuse,int8"
data = "rows.npz"
plugins = ["mine.py"]
options.int8.cosine = 0.9
"""


def test_compile_takes_a_recipe(capsys: pytest.CaptureFixture[str], calls: list[dict[str, Any]]) -> None:
    write("deep/r.toml", WHOLE)
    write("pyproject.toml", '[tool.ffc]\ntarget = "portable"')  # not read beside --recipe
    call, said = run(capsys, calls, "--recipe", "deep/r.toml")
    assert call == {
        "model": Path("deep/model.onnx"), "passes": "fuse,int8{cosine=0.9}", "out": Path("deep/small.onnx"), "target": "cpu",
        "data": Path("deep/rows.npz"), "plugins": ("deep/mine.py",), "sets": (),
    }  # fmt: skip
    assert said == []


def test_the_command_line_comes_first(capsys: pytest.CaptureFixture[str], calls: list[dict[str, Any]]) -> None:
    write("deep/r.toml", WHOLE)
    write("p.py", PLUGIN.replace('"mine"', '"another"'))
    words = (
        "other.onnx --recipe deep/r.toml --set int8.cosine=0.8 -o o.onnx --target portable --data d.npz --plugin p.py"
    )
    call, _ = run(capsys, calls, *words.split())
    assert call == {
        "model": Path("other.onnx"), "passes": "fuse,int8{cosine=0.8}", "out": Path("o.onnx"), "target": "portable",
        "data": Path("d.npz"), "plugins": ("deep/mine.py", "p.py"), "sets": (),
    }  # fmt: skip


def test_passes_given_replace_passes_and_options(
    capsys: pytest.CaptureFixture[str], calls: list[dict[str, Any]]
) -> None:
    write("deep/r.toml", WHOLE)
    call, _ = run(capsys, calls, "--recipe", "deep/r.toml", "--passes", "int8")
    assert call["passes"] == "int8"


def test_no_passes_can_be_asked_for(capsys: pytest.CaptureFixture[str], calls: list[dict[str, Any]]) -> None:
    call, _ = run(capsys, calls, "model.onnx", "--passes", "")
    assert call["passes"] == ""


def test_the_recipe_of_a_project_is_said(capsys: pytest.CaptureFixture[str], calls: list[dict[str, Any]]) -> None:
    write("pyproject.toml", '[tool.ffc]\nmodel = "model.onnx"\npasses = "fuse"')
    call, said = run(capsys, calls)
    assert (call["model"], call["passes"]) == (Path("model.onnx"), "fuse")
    assert said == ["using [tool.ffc] of pyproject.toml"]


@pytest.mark.parametrize(
    ("words", "files", "line"),
    [
        (
            "", {},
            "nothing to compile; give a model, as in `ffc compile model.onnx`, or a recipe that names one, by --recipe or "
            "as [tool.ffc] in pyproject.toml",
        ),
        ("--recipe r.toml", {"r.toml": ""}, 'r.toml names no model; add one, such as model = "model.onnx"'),
        ("r.toml", {"r.toml": ""}, "'r.toml' is no model; a recipe is given as --recipe r.toml"),
        ("--recipe r.toml", {"r.toml": "modle = 1"}, "r.toml:1: unknown key 'modle'; did you mean 'model'?"),
        ("", {"r.toml": ""}, "nothing to compile; "),
        (
            "--recipe r.toml", {"r.toml": 'model = "model.onnx"\nout = "model.onnx"'},
            "the output 'model.onnx' is the input; name another file with -o",
        ),
        (
            "--recipe r.toml", {"r.toml": 'model = "model.onnx"\nreport = "r.pdf"'},
            "report 'r.pdf' has the suffix '.pdf'; known: .json, .md, .html",
        ),
    ],
)  # fmt: skip
def test_usage(
    words: str, files: dict[str, str], line: str, calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in files.items():
        write(name, text)
    assert cli.main(["compile", *words.split()]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"ffc: error: {line}")
    assert (captured.out, captured.err.count("\n"), calls) == ("", 1, [])


def test_a_recipe_compiles_and_writes_its_report() -> None:
    ffc.save(encoder(), "deep/model.onnx")
    np.savez("deep/rows.npz", **feeds(masks(2, 6)["right"]))
    text = (
        'model = "model.onnx"\npasses = "fuse,int8"\ndata = "rows.npz"\nreport = "r.json"\noptions.int8.skip = "head"\n'
    )
    result = recipe.compile(recipe.load(write("deep/r.toml", text)))
    assert ffc.load("deep/model.ffc.onnx").metadata_props["ffc.pipeline"] == "fuse,int8{skip=head}"
    report = from_json(Path("deep/r.json").read_text())
    assert report == result.report
    assert report.verdict is not None


def test_a_recipe_without_a_model_from_python() -> None:
    with pytest.raises(UsageError) as caught:
        recipe.compile(recipe.Recipe())
    assert str(caught.value) == 'the recipe names no model; add one, such as model = "model.onnx"'
