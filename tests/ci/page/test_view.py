"""``ffc view``, and what its page is made of without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx_ir as ir
import pytest
from click.testing import CliRunner

from ffc.ci.diff.diff import diff
from ffc.ci.page import records
from ffc.ci.page.page import diff_page
from ffc.commands.view import view
from ffc.errors import UsageError
from ffc.graph.files import save
from tests.graphs import encoder, run_passes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    save(encoder(), path)
    return path


def run(*arguments: object) -> None:
    CliRunner().invoke(view, [str(each) for each in arguments], catch_exceptions=False, standalone_mode=False)


def test_the_page_goes_where_one_is_and_is_named_after_the_model(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run(model)
    page = (tmp_path / "here" / "small.html").read_text(encoding="utf-8")
    assert "small.onnx" in page
    assert "MatMul" in page


def test_the_model_is_not_written_over_and_the_folder_must_exist(model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    for out in (model, tmp_path, tmp_path / "none" / "page.html"):
        with pytest.raises(UsageError):
            run(model, "-o", out)
    assert model.read_bytes() == content


def test_the_page_asks_for_nothing_and_lets_only_its_own_script_run() -> None:
    small = encoder()
    page = diff_page(diff(small, small))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    # A namespace is a name; nothing is fetched from there.
    assert set(re.findall(r"https?://[^\s\"'`]*", page)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link(?! rel=\"icon\" href=\"data:,\")|<script[^>]* src|@import|url\((?!#)", page)


def test_the_same_models_give_the_same_page() -> None:
    assert diff_page(diff(encoder(), encoder(seed=1))) == diff_page(diff(encoder(), encoder(seed=1)))


def test_no_text_of_a_model_can_end_the_data() -> None:
    small = encoder()
    small.graph.node(0).name = "</script><!-- & \u2028 \ud800"
    page = diff_page(diff(small, small))
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert not re.search(r"[<>&\u2028]", data)
    assert json.loads(data)["models"][0]["nodes"]


def test_a_change_in_a_function_concerns_its_calls() -> None:
    before, after = (run_passes(encoder(layers=2, opset=23), "clean", "fuse") for _ in range(2))
    for function in after.functions.values():
        for node in function:
            if function.name == "AddNorm" and node.op_type == "LayerNormalization":
                node.attributes["axis"] = ir.AttrInt64("axis", -2)
    found = diff(before, after)
    data = json.loads(json.dumps(records.of_diff(found)))
    calls = [at for at, node in enumerate(found.after.graph.nodes) if node.op == "ffc.AddNorm"]
    ((place,),) = (group["places"] for group in data["groups"])
    assert place["scope"] == "ffc:AddNorm"
    assert place["after"] == calls != []
    assert [at for at, node in enumerate(data["models"][1]["nodes"]) if node[-1] == "changed"] == calls
