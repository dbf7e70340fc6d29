"""A report in each of its forms."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from ffc.compiler.proof.contracts import Verdict
from ffc.compiler.reports.report import Report, Step, from_json, to_json
from ffc.compiler.reports.terminal import terminal
from ffc.compiler.reports.writing import to_html, to_markdown, write
from ffc.errors import InputError, UsageError
from ffc.graph.cost import Cost

VERDICT = Verdict("equal to 0.0001", 3.2e-7, 0.99999912, None, 12, "2x7 holed, last_hidden_state")

REPORT = Report(
    source="bert|<b>.onnx",
    output="bert.ffc.onnx",
    pipeline="fuse,int8{skip=head}",
    target="cpu",
    before=Cost(nodes=812, parameters=109_482_240, bytes=437_928_960, macs=11_173_000_000, macs_unknown=0),
    batch=1,
    length=128,
    steps=[
        Step("clean", "clean", "fuse", {"identities": 3}, [], [], [], Cost(640, 109_482_240, 437_928_960, 11_173_000_000, 0), 1.25, VERDICT),
        Step("fuse", "fuse", None, {"Linear": 72, "AddNorm": 24}, ["Linear q"], ["12 layers"], ["/pooler: no tanh"], Cost(110, 109_482_240, 437_928_960, 11_173_000_000, 2), 2.0, VERDICT),
        Step("int8{skip=head}", "int8{range=full skip=head}", None, {}, [], [], [], Cost(110, 1_234, 4_936, 0, 0), 0.5, None),
    ],
    verdict=Verdict("cosine ≥ 0.99", 0.021, 0.9987, 0.995, 24, "4x16 full, logits"),
    oldest_onnxruntime="1.20",
    versions={"ffc": "0.1.0", "onnxruntime": "1.32.0"},
    seconds=4.5,
)  # fmt: skip


def shown(report: Report) -> str:
    """Return what the terminal shows."""
    console = Console(width=140, highlight=False, file=None, record=True, quiet=False)
    with console.capture() as captured:
        console.print(terminal(report))
    return captured.get()


def test_json_reads_back() -> None:
    assert from_json(to_json(REPORT)) == REPORT
    assert json.loads(to_json(REPORT))["format"] == "ffc.report/2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the report is not JSON: "),
        ("[]", "the report has format None, wanted 'ffc.report/2'; "),
        ('{"format": "ffc.report/0"}', "the report has format 'ffc.report/0', wanted 'ffc.report/2'; "),
        ('{"format": "ffc.report/2"}', "the report is broken at source: Field required"),
    ],
)
def test_json_that_is_no_report(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_json(text)
    assert str(caught.value).startswith(message)


def test_the_terminal_shows_rows_then_facts_then_remarks() -> None:
    lines = [" ".join(line.split()) for line in shown(REPORT).splitlines() if line.strip()]
    assert lines[0] == "pass changes nodes parameters (M) MB MACs (G) seconds difference cosine"
    assert lines[2:] == [
        "(as it came) 812 109 438 11.2",
        "clean (for fuse) 3 640 109 438 11.2 1.2 3.2e-07 0.999999",
        "fuse 96 110 109 438 11.2 + ? 2.0 3.2e-07 0.999999",
        "int8{skip=head} 0 110 0.00123 0.00494 0 0.5",
        "MACs at batch 1, 128 tokens; differences relative to the scale of the output; '?' stands for products whose size is not known.",
        "output: bert.ffc.onnx",
        "pipeline: fuse,int8{skip=head}",
        "target: cpu",
        "result: difference 2.1e-02, cosine 0.998700, agreement 0.9950 on 24 probes, worst 4x16 full, logits (cosine ≥ 0.99)",
        "needs: onnxruntime ≥ 1.20",
        "made with: ffc 0.1.0, onnxruntime 1.32.0",
        "time: 4.5 s",
        "clean (for fuse)",
        "3 identities",
        "fuse",
        "72 Linear, 24 AddNorm",
        "12 layers",
        "skipped: /pooler: no tanh",
        "int8{skip=head}",
        "nothing to do",
    ]


def test_markup_in_names_is_not_interpreted_by_the_terminal() -> None:
    step = Step("fuse", "fuse", None, {"[red]x[/red]": 1}, [], [], [], REPORT.before, 1.0, None)
    assert "1 [red]x[/red]" in shown(Report(**{**vars(REPORT), "steps": [step]}))


def test_markdown() -> None:
    lines = to_markdown(REPORT).splitlines()
    assert lines[0] == "# ffc compile bert\\|&lt;b>.onnx"
    assert "| clean (for fuse) | 3 | 640 | 109 | 438 | 11.2 | 1.2 | 3.2e-07 | 0.999999 |" in lines
    assert lines[-9:-4] == ["## fuse", "", "- 72 Linear, 24 AddNorm", "- 12 layers", "- skipped: /pooler: no tanh"]


def test_html_is_one_escaped_page() -> None:
    page = to_html(REPORT)
    tags: list[str] = []
    stack: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            if tag != "meta":
                stack.append(tag)
            assert not {"src", "href"} & {name for name, _ in attrs}

        def handle_endtag(self, tag: str) -> None:
            assert stack.pop() == tag

    Parser().feed(page)
    assert not stack
    assert tags.count("tr") == 5
    assert "b" not in tags
    assert "<title>ffc compile bert|&lt;b&gt;.onnx</title>" in page


@pytest.mark.parametrize(("name", "start"), [("r.json", "{"), ("r.md", "# ffc"), ("r.html", "<!doctype html>")])
def test_write_goes_by_suffix(tmp_path: Path, name: str, start: str) -> None:
    write(REPORT, tmp_path / name)
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)


def test_paths_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.md").mkdir()
    for name, message in {
        "r.pdf": "report 'r.pdf' has the suffix '.pdf'; known: .json, .md, .html",
        "no/r.md": "the folder 'no' of report 'no/r.md' does not exist; create it first",
        "folder.md": "report 'folder.md' is a folder; name a file",
    }.items():
        with pytest.raises(UsageError) as caught:
            write(REPORT, name)
        assert str(caught.value) == message


def test_a_model_that_did_not_change() -> None:
    unchanged = Report(**{**vars(REPORT), "steps": [], "verdict": None, "output": None, "pipeline": ""})
    text = shown(unchanged)
    assert "output: not written\npipeline: (no passes)" in text
    assert "result: unchanged" in text
