"""``ffc diff`` as a user runs it."""

import json
import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from ffc.cli import main
from ffc.graph import files
from tests.graphs import encoder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    files.save(encoder(), "one.onnx")
    other = encoder()
    norms = [node for node in other.graph if node.op_type == "LayerNormalization"]
    for norm in norms:
        norm.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-5)
    files.save(other, "other.onnx")
    return tmp_path


def test_equal_models_exit_with_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "one.onnx", "one.onnx"]) == 0
    assert capsys.readouterr().out.endswith("no changes\n")


def test_models_that_differ_exit_with_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "one.onnx", "other.onnx"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^attribute +×3 +LayerNormalization epsilon: 1e-12 → 1e-05 ", out, re.MULTILINE)
    assert out.endswith("3 changes: 3 attribute\n")


def test_json_names_every_change(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "one.onnx", "other.onnx", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["equal"]) == ("ffc.diff/1", False)
    (group,) = found["groups"]
    assert (group["kind"], group["count"], len(group["changes"])) == ("attribute", 3, 3)
    assert group["changes"][0]["detail"] == {"attribute": "epsilon", "before": "1e-12", "after": "1e-05"}
    assert found["before"]["cost"] == found["after"]["cost"]


def test_files_are_written_in_the_form_of_their_suffix(folder: Path) -> None:
    assert main(["diff", "one.onnx", "other.onnx", "-o", "d.json", "-o", "d.md", "-o", "d.html"]) == 1
    assert json.loads(Path("d.json").read_text())["format"] == "ffc.diff/1"
    markdown = Path("d.md").read_text()
    assert markdown.startswith("<!-- ffc diff one.onnx -->\n")
    assert "| attribute | ×3 | `LayerNormalization epsilon: 1e-12 → 1e-05` |" in markdown
    assert Path("d.html").read_text().startswith("<!doctype html>")


def test_numbers_are_compared_where_that_is_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = encoder(seed=1)
    files.save(other, "trained.onnx")
    assert main(["diff", "one.onnx", "trained.onnx", "--numerics", "--json"]) == 1
    kinds = [group["kind"] for group in json.loads(capsys.readouterr().out)["groups"]]
    assert kinds[-1] == "numerics"
    assert "weight-value" in kinds
    assert main(["diff", "one.onnx", "one.onnx", "--numerics"]) == 0


def test_numbers_are_compared_on_rows_of_the_users_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one model cuts what is above 10, which no input that is made reaches."""
    for name, operator in (("all", "Identity(x)"), ("cut", "Clip(x, , most)")):
        text = f'<ir_version: 10, opset_import: ["" : 23]> g (float[n] x) => (float[n] y) <float most = {{10}}> {{ y = {operator} }}'
        files.save(ir.from_onnx_text(text), f"{name}.onnx")
    np.savez("rows.npz", x=np.array([1, 20], np.float32))
    kinds = {}
    for rows in ([], ["--data", "rows.npz"]):
        main(["diff", "all.onnx", "cut.onnx", "--numerics", "--json", *rows])
        kinds[len(rows)] = {group["kind"] for group in json.loads(capsys.readouterr().out)["groups"]}
    assert kinds[2] - kinds[0] == {"numerics"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["one.onnx", "on.onnx"], 3, "cannot load on.onnx: no such file; did you mean 'one.onnx'?"),
        (["one.onnx"], 2, "missing argument 'AFTER'"),
        (["one.onnx", "other.onnx", "-o", "d.txt"], 2, "'d.txt' has the suffix '.txt'; known: .json, .md, .html"),
        (["one.onnx", "other.onnx", "-o", "gone/d.md"], 2, "the folder 'gone' of the output does not exist"),
        (["one.onnx", "broken.onnx"], 3, "cannot load broken.onnx: truncated or not an ONNX model"),
        (["one.onnx", "other.onnx", "--numeric"], 2, "no such option '--numeric'; did you mean '--numerics'?"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    Path("broken.onnx").write_bytes(b"not a model")
    assert main(["diff", *words]) == code
    error = capsys.readouterr().err
    assert error.startswith("ffc: error: ")
    assert said in error
    assert error.count("\n") == 1


def test_models_that_take_other_inputs_have_no_numbers_to_compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = encoder()
    other.graph.inputs[1].name = "mask"
    files.save(other, "mask.onnx")
    assert main(["diff", "one.onnx", "mask.onnx"]) == 1
    assert "input renamed: attention_mask → mask" in capsys.readouterr().out
    assert main(["diff", "one.onnx", "mask.onnx", "--numerics"]) == 4
    assert "numbers cannot be compared: only the first model has the input 'attention_mask'" in capsys.readouterr().err
