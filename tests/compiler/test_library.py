"""Where passes come from, what clashes, and what a broken file says."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from ffc.compiler import library as library_module
from ffc.compiler import syntax
from ffc.compiler.library import Library, builtin_folder
from ffc.errors import FfcError, InputError, MissingError, UsageError
from tests.checkout import ROOT

SHRINK = '''"""A pass of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ffc.compiler.proof.contracts import Equal
from ffc.compiler.log import Log
from ffc.compiler.passes import Pass, option


@dataclass(frozen=True)
class Shrink(Pass):
    """Make it small."""

    name = "shrink"
    contract = Equal(1e-3)
    by: int = option("how much", default=2)
    where: Path | None = option("where", default=None)

    def run(self, model, log):
        log.did("shrink")
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(library_module, "builtin_folder", lambda: tmp_path / "passes")
    (tmp_path / "passes").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def modules() -> object:
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if name.startswith(("ffc_plugin_", "ffc.passes.")):
            del sys.modules[name]


def test_a_folder_gives_the_passes_that_its_files_define(folder: Path) -> None:
    (folder / "passes" / "shrink.py").write_text(SHRINK)
    grow = SHRINK.replace("Shrink", "Grow").replace('"shrink"', '"grow"')
    (folder / "passes" / "grow.py").write_text(grow)
    (folder / "passes" / "_private.py").write_text("raise RuntimeError")
    found = Library.default()
    assert list(found) == ["grow", "shrink"]
    assert found["shrink"].__module__ == "ffc.passes.shrink"
    assert found.origin("shrink") == "built in (passes/shrink.py)"
    assert Library.default()["shrink"] is found["shrink"]


def test_a_plugin_names_one_pass_or_all(folder: Path) -> None:
    (folder / "mine.py").write_text(SHRINK)
    for text in ("mine.py", "./mine.py:Shrink", str(folder / "mine.py")):
        found = Library.default([text])
        assert list(found) == ["shrink"]
    assert Library.default(["./mine.py"]).origin("shrink") == "./mine.py:Shrink"


def test_a_pass_by_path_in_a_pipeline(folder: Path) -> None:
    (folder / "mine.py").write_text(SHRINK)
    library = Library.default()
    first, second = syntax.parse("./mine.py:Shrink{by=3},./mine.py:Shrink", library, ["shrink.where=a"])
    assert syntax.unparse([first, second]) == "shrink{by=3 where=a},shrink{where=a}"
    assert syntax.parse(syntax.unparse([first]), library) == [first]


def test_an_edited_plugin_is_loaded_anew(folder: Path) -> None:
    (folder / "mine.py").write_text(SHRINK)
    first = Library.default(["mine.py"])["shrink"]
    assert Library.default(["mine.py"])["shrink"] is first
    (folder / "mine.py").write_text(SHRINK.replace("default=2", "default=5"))
    assert syntax.kinds(Library.default(["mine.py"])["shrink"])["by"].default == 5


def test_a_clash_names_both_origins(folder: Path) -> None:
    (folder / "passes" / "shrink.py").write_text(SHRINK)
    (folder / "mine.py").write_text(SHRINK)
    with pytest.raises(UsageError) as caught:
        Library.default(["mine.py:Shrink"])
    assert str(caught.value) == (
        "two passes are named 'shrink': built in (passes/shrink.py) and mine.py:Shrink; rename one"
    )


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("def (", InputError, "mine.py:1 cannot be loaded: SyntaxError: "),
        ("\nx = 1 / 0", InputError, "mine.py:2 cannot be loaded: ZeroDivisionError: division by zero"),
        ("import nowhere_to_be_found", MissingError, "mine.py needs the module 'nowhere_to_be_found', which is not installed"),
        ("", UsageError, "'mine.py' defines no pass, that is no subclass of ffc.Pass with a name"),
        (SHRINK.replace("@dataclass(frozen=True)\n", ""), UsageError, "the pass from mine.py:Shrink has options but is no dataclass; "),
        (SHRINK.replace('"shrink"', '"Shrink It"'), UsageError, "the name 'Shrink It' of the pass from mine.py:Shrink is not in kebab"),
    ],
)  # fmt: skip
def test_a_broken_file_says_what_is_wrong(folder: Path, text: str, error: type[FfcError], message: str) -> None:
    (folder / "mine.py").write_text(text)
    before = set(sys.modules)
    with pytest.raises(error) as caught:
        Library.default(["mine.py"])
    assert str(caught.value).startswith(message)
    left = {name for name in set(sys.modules) - before if name.startswith("ffc_plugin_")}
    assert bool(left) == (error is UsageError), "a file that failed half-way must not stay loaded"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("nope.py:X", InputError, "the file 'nope.py' of pass 'nope.py:X' does not exist"),
        ("mine.py:Shrnk", UsageError, "'mine.py' defines no pass 'Shrnk'; did you mean 'Shrink'?"),
        ("mine:Shrink", UsageError, "plugin 'mine:Shrink' is not of the form file.py or file.py:Name"),
    ],
)
def test_a_plugin_that_is_not_there(folder: Path, text: str, error: type[FfcError], message: str) -> None:
    (folder / "mine.py").write_text(SHRINK)
    with pytest.raises(error) as caught:
        Library.default([text])
    assert str(caught.value) == message


def test_entry_points(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shrinking.py").write_text(SHRINK)
    monkeypatch.syspath_prepend(folder)
    entries = EntryPoints([EntryPoint("shrink", "shrinking:Shrink", "ffc.passes")])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: entries.select(group=group))
    assert Library.default().origin("shrink") == "entry point 'shrink' of an unknown package"
    entries = EntryPoints([EntryPoint("shrink", "shrinking:Gone", "ffc.passes")])
    with pytest.raises(
        InputError, match=r"^entry point 'shrink' of an unknown package cannot be loaded: AttributeError"
    ):
        Library.default()
    entries = EntryPoints([EntryPoint("shrink", "shrinking:Path", "ffc.passes")])
    with pytest.raises(InputError, match=r"is not a subclass of ffc.Pass with a name; it names 'shrinking:Path'$"):
        Library.default()


def test_the_library_loads_without_torch() -> None:
    code = (
        "import sys; from ffc.compiler.library import Library; Library.default();"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_pass_of_several_files_is_a_folder_that_its_init_stands_for(folder: Path) -> None:
    for place in (folder / "passes" / "shrink", folder / "mine"):
        place.mkdir()
        (place / "__init__.py").write_text(SHRINK.replace("default=2", "default=HOW_MUCH") + "\n")
        (place / "__init__.py").write_text(f"from .numbers import HOW_MUCH\n{(place / '__init__.py').read_text()}".replace("from __future__ import annotations\n", ""))
        (place / "numbers.py").write_text("HOW_MUCH = 3\n")
    found = Library.default()
    assert found["shrink"]().by == 3
    assert found.origin("shrink") == "built in (passes/shrink/__init__.py)"
    mine = Library()
    assert [kind().by for kind in mine.add_file("mine/__init__.py:Shrink")] == [3]
    (folder / "mine" / "numbers.py").write_text("HOW_MUCH = 4\n")  # as long as before, and within the same second
    assert [kind().by for kind in Library().add_file("mine/__init__.py")] == [4]
    (folder / "mine" / "numbers.py").write_text("\nHOW_MUCH = 4 / 0\n")
    with pytest.raises(InputError, match=r"^mine/numbers.py:2 cannot be loaded: ZeroDivisionError"):
        Library().add_file("mine/__init__.py")


def test_the_library_of_this_checkout_is_found() -> None:
    assert builtin_folder() in {ROOT / "passes", ROOT / "ffc" / "passes"}


def test_all_packages_are_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("ffc/**/*.py")}
    passes = {".".join(("ffc", *file.parent.relative_to(ROOT).parts)) for file in ROOT.glob("passes/**/*.py")}
    assert sorted(listed) == sorted(folders | passes)
