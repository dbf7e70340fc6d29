"""What the documents tell a user to type works."""

from __future__ import annotations

import os
import re
import runpy
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime.quantization import quantize_dynamic

import ffc
from ffc import cli
from ffc.compiler.syntax import kinds
from ffc.pruning import by_norm
from tests.checkout import ROOT
from tests.graphs import LIBRARY, of_program
from tests.rule_proofs import prove, samples
from tests.texts import write_tokenizer
from tests.train import tiny

PAGES = sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "examples/own_pass/README.md", *PAGES]
WITHOUT = {"docs/architecture.md", "docs/proofs.md"}
"""Documents that give nothing to type."""

TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@dataclass(frozen=True)
class Block:
    """A fenced block of a document: its language, its text, and the line it begins at."""

    language: str
    text: str
    line: int

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a block of shell, as words."""
        return [shlex.split(line) for line in self.text.splitlines() if self.language == "sh"]


def blocks(document: str) -> Iterator[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)


@pytest.fixture
def workplace(tmp_path: Path, exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with what the documents name, a small encoder in the place of MiniLM, and go there."""
    monkeypatch.chdir(tmp_path)
    Path("examples").symlink_to(ROOT / "examples")
    os.link(exported("bert"), "minilm.onnx")
    quantize_dynamic("minilm.onnx", "model_quantized.onnx")
    by_norm(ffc.find_blocks(ffc.load("minilm.onnx"))).save("importance.safetensors")
    ids = np.array([[2, 7, 9, 3]])
    np.savez("rows.npz", input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids))
    save_data(Path("data"))
    write_tokenizer(Path())
    write_tokenizer(Path())
    monkeypatch.setattr("ffc.settings.packages.folder", lambda name: tiny.save_model(tmp_path / name, longest=128))
    return tmp_path


def save_data(folder: Path) -> None:
    """Write rows of the task that the documents name, made of the words of the tiny model that stands for MiniLM."""
    for name, rows in (("train", 24), ("dev", 8)):
        (folder / "sst2").mkdir(parents=True, exist_ok=True)
        table = tiny.save_rows(folder / "sst2" / f"{name}.tsv", rows, seed=rows)
        table.write_text(table.read_text(encoding="utf-8").replace("text\t", "sentence\t", 1), encoding="utf-8")


def run_python(block: Block, number: int) -> dict[str, Any]:
    """Run a block as a file, named by its first line if that is a comment with a name, and return what it defines."""
    named = re.match(r"# (?:passes/)?(\w+\.py)\n", block.text)
    path = Path(named[1] if named else f"block{number}.py")
    path.write_text(block.text, encoding="utf-8")
    return runpy.run_path(str(path))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_works(document: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = 0
    for number, block in enumerate(blocks(document)):
        if block.language == "python":
            run_python(block, number)
            ran += 1
        if block.language == "toml":
            Path("s.toml" if "[task]" in block.text else "r.toml").write_text(block.text, encoding="utf-8")
        for program, *arguments in block.commands:
            where = f"{document}:{block.line}: {program} {shlex.join(arguments)}"
            if program == "make":
                assert set(arguments) <= TARGETS, where
            else:
                assert program == "ffc", where
                code, wanted = cli.main(arguments), {0, 1} if arguments[0] == "diff" else {0}
                assert code in wanted, f"{where}\n{capsys.readouterr().err}"
            ran += 1
    assert ran or document in WITHOUT


def test_every_target_that_the_readme_names_exists() -> None:
    named = re.findall(r"`make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert {"demo", "test", "bench"} <= set(named) <= TARGETS


def test_every_pass_of_the_library_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [place.stem for place in (ROOT / "passes").glob("[!_]*") if f"`{place.stem}`" not in text]
    assert not missing, f"name {', '.join(missing)} in the table of passes in README.md"


def test_the_page_on_passes_has_every_pass_option_and_rule() -> None:
    path = ROOT / "docs" / "passes_page.py"
    made = runpy.run_path(str(path))["page"]()
    for name, kind in LIBRARY.items():
        section = made.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        wanted = {*kinds(kind), *(rule.name for rule in kind.rules)} - {"expect"}
        assert section and not [word for word in wanted if f"`{word}`" not in section]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    lost = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link and not (ROOT / link).exists()]
    assert not lost


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_exit_codes_in_the_documents_are_those_of_the_errors() -> None:
    text = (ROOT / "docs" / "compile.md").read_text(encoding="utf-8")
    stated = set(map(int, re.findall(r"^\| (\d+) \| [a-z]", text, re.MULTILINE)))
    kinds = [kind for kind in vars(ffc.errors).values() if isinstance(kind, type) and issubclass(kind, ffc.FfcError)]
    assert stated == {0, *(kind.exit_code for kind in kinds)}


@pytest.fixture
def contributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return all that the blocks of the page on passes of one's own define."""
    monkeypatch.chdir(tmp_path)
    defined: dict[str, Any] = {}
    for number, block in enumerate(blocks("docs/writing-a-pass.md")):
        if block.language == "python":
            defined |= run_python(block, number)
    return defined


def test_the_rule_in_the_documents_is_proved_on_its_samples(contributed: dict[str, Any]) -> None:
    (rule,) = contributed["Reciprocal"].rules
    fired = [bool(prove(rule, sample)) for sample in samples(rule, seeds=(0,))]
    assert set(fired) == {False, True}


def test_the_pass_in_the_documents_keeps_its_contract(
    contributed: dict[str, Any], exported: Callable[..., Path]
) -> None:
    report = ffc.compile(exported("bert"), [contributed["Reciprocal"]()]).report
    assert [step.text for step in report.steps if step.text == "reciprocal"]


def test_the_lowering_in_the_documents_computes_the_body(contributed: dict[str, Any]) -> None:
    from ffc.graph.execute import Runner

    random = np.random.default_rng(0)
    function = contributed["RmsNorm"]
    shapes = {"x": (2, 3, 8), "gamma": (8,)}
    inputs = {name: random.standard_normal(shapes[name]).astype(np.float32) for name in function.tensors}
    (lowering,) = function.lowerings
    pair = (lowering.program, function.body)
    found, expected = (Runner(of_program(p, inputs, {}, {"epsilon": 1e-6})).run(inputs)["y"] for p in pair)
    assert np.allclose(found, expected, atol=1e-5)
