"""What is not installed is told before the work, by every command and from Python."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest

import ffc
from ffc import cli
from ffc.errors import MissingError
from ffc.settings import libraries
from ffc.study import running, study
from tests.checkout import ROOT
from tests.graphs import encoder

STUDY = '[task]\nname = "text"\ntrain = "rows.tsv"\ntext = ["text"]\n[teacher]\nmodel = "model"\nepochs = 1\n'
OF_THE_HUB = STUDY.replace('name = "text"\ntrain = "rows.tsv"', 'name = "hub:weather"')
TRAIN = "install it with pip install 'fastformers-compiler[train]'"
ROWS = "--task text --train rows.tsv --text text"
TABLE = [
    ("study run s.toml", "matplotlib", f"plots need matplotlib; {TRAIN}"),
    ("study run s.toml", "accelerate", f"this needs accelerate; {TRAIN}"),
    ("study run s.toml", "onnxscript", "the export needs onnxscript; install it with pip install onnxscript"),
    ("study run s.toml", "jinja2", "HTML pages need jinja2; install it with pip install jinja2"),
    ("study run hub.toml", "datasets", f"data sets of the hub need datasets; install it with pip install datasets, {libraries.HUB.instead}"),
    ("study show s.toml", "torch", f"this needs torch; {TRAIN}"),
    (f"train --model model {ROWS} -o out", "transformers", f"this needs transformers; {TRAIN}"),
    (f"train --model model {ROWS} -o out --onnx m.onnx", "onnxscript", "the export needs onnxscript; install it with pip install onnxscript"),
    (f"distill --teacher model {ROWS} --layers 1 -o out", "accelerate", f"this needs accelerate; {TRAIN}"),
    ("export model -o m.onnx", "onnxscript", "the export needs onnxscript; install it with pip install onnxscript"),
    (f"score model {ROWS} -o i.safetensors", "torch", f"this needs torch; {TRAIN}"),
    (f"search model {ROWS} --macs 0.5 -o p.json", "torch", f"this needs torch; {TRAIN}"),
    ("plan model --by norm --heads 0.5 -o p.json", "torch", f"this needs torch; {TRAIN}"),
    ("reduce empty.onnx -o out", "onnxscript", "the conversion between opsets needs onnxscript; install it with pip install onnxscript"),
    ("compile empty.onnx -o m.onnx --report r.html", "jinja2", "HTML pages need jinja2; install it with pip install jinja2"),
    ("check empty.lock --report r.html", "jinja2", "HTML pages need jinja2; install it with pip install jinja2"),
    ("diff empty.onnx empty.onnx -o r.html", "jinja2", "HTML pages need jinja2; install it with pip install jinja2"),
    ("view empty.onnx -o r.html", "markupsafe", "HTML pages need markupsafe; install it with pip install jinja2"),
]  # fmt: skip

_EXTRAS = ("torch", "transformers", "accelerate", "matplotlib", "datasets")
needs_extras = pytest.mark.skipif(not all(map(importlib.util.find_spec, _EXTRAS)), reason="needs what extras bring")
"""Where more is missing than a test takes away, more is told."""


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go where files are that none of the commands can make anything of."""
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    Path("model/config.json").touch()
    for name in ("empty.onnx", "empty.lock", "rows.tsv"):
        Path(name).touch()
    Path("s.toml").write_text(STUDY)
    Path("hub.toml").write_text(OF_THE_HUB)


@needs_extras
@pytest.mark.parametrize(("words", "lacking", "line"), TABLE, ids=[f"{row[0].split()[0]}-{row[1]}" for row in TABLE])
def test_each_command_says_first_what_is_not_installed(
    words: str, lacking: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().iterdir())
    monkeypatch.setitem(sys.modules, lacking, None)  # type: ignore[arg-type]
    assert cli.main(words.split()) == 5
    assert capsys.readouterr().err == f"ffc: error: {line}\n"
    assert sorted(Path().iterdir()) == before


@needs_extras
def test_all_that_is_lacking_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "matplotlib", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    with pytest.raises(MissingError) as caught:
        running.run(study.load("hub.toml"), Path("out"), None)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "this needs torch, data sets of the hub need datasets, plots need matplotlib; install them with "
        f"pip install 'fastformers-compiler[train]' datasets, {libraries.HUB.instead}"
    )


def test_a_conversion_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # type: ignore[arg-type]
    with pytest.raises(MissingError, match=r"^pass 'opset': the conversion between opsets needs onnxscript; install it"):
        ffc.compile(encoder(), "clean")


def test_what_is_imported_without_a_place_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", type(sys)("matplotlib"))
    libraries.check(libraries.PLOTS)


def test_every_library_that_is_imported_comes_with_ffc_or_is_asked_for() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        required = {re.split("[<>=]", each)[0].replace("-", "_") for each in tomllib.load(file)["project"]["dependencies"]}
    needs = [each for each in vars(libraries).values() if isinstance(each, libraries.Need)]
    known = required | {name for need in needs for name in need.modules}
    known |= {"ffc", "google", "huggingface_hub", "pytest", "_typeshed", *sys.stdlib_module_names}
    # google: protobuf, of onnx; huggingface_hub: of transformers; pytest calls its plugin; _typeshed is for type checkers
    for path in (ROOT / "ffc").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not {name.partition(".")[0] for name in names} - known, path
