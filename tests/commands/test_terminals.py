"""Every command on terminals and pipes of any kind: each ends with its exit code, and what it makes is there."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from ffc.cli import ffc
from ffc.graph import files
from ffc.study.report import summary
from tests import graphs
from tests.commands.leaves import commands
from tests.commands.terminals import FULL, Ending, Kind, Way, run
from tests.safety.broken import parsed
from tests.study import made_up

COMMANDS = commands(ffc)
SCRIPTS = "層×注意😀"
"""A name that no encoding but those of Unicode has."""

WAYS = {
    **{encoding: Way(encoding=encoding) for encoding in ("ascii", "cp1252", "utf-16")},
    "stdout full": Way(out="full"),
    "stdout closed": Way(out="closed"),
    "stdout unread": Way(out="unread"),
    "stderr full": Way(err="full"),
    "all closed": Way(out="closed", err="closed", stdin=False),
}
HAS_FULL = FULL.exists() and stat.S_ISCHR(FULL.stat().st_mode)


@dataclass(frozen=True)
class Case:
    """A run of a command that is cheap: what it is given, the file that comes of it, its exit code, whether it prints."""

    arguments: str
    made: str = ""
    code: int = 0
    prints: bool = True
    ways: tuple[str, ...] = tuple(WAYS)


ROWS = "--task text --train {place}/rows.tsv --validation {place}/rows.tsv --text text --max-length 16"
FIT = f"{ROWS} --epochs 1 --batch-size 16"
CASES = {
    "check": Case("{place}/m.ffc.lock --accept --report r.json", "r.json"),
    "compile": Case("{place}/small×層.onnx --passes clean -o o.onnx --report r.json", "o.onnx"),
    "diff": Case("{place}/m.onnx {place}/other.onnx -o d.json", "d.json", code=1),
    "distill": Case(f"--teacher {{place}}/teacher --layers 1 {FIT} -o student", "student/config.json", ways=("stdout full",)),
    "explain": Case("{place}/m.onnx"),
    "export": Case("{place}/teacher -o o.onnx", "o.onnx", ways=("cp1252",)),
    "lock": Case("{place}/m.onnx --as-it-is -o l.ffc.lock", "l.ffc.lock"),
    "passes": Case(""),
    "plan": Case("{place}/m.onnx --by norm --heads 1 -o p.json", "p.json"),
    "print": Case("{place}/m.onnx"),
    "reduce": Case("{place}/refused.onnx --passes clean -o small", "small/README.md", ways=("ascii",)),
    "score": Case("{place}/m.onnx --data {place}/rows.npz -o i.safetensors", "i.safetensors", ways=("cp1252", "stdout full", "all closed")),
    "search": Case(f"{{place}}/teacher {ROWS} --macs 0.6 -o p.json", "p.json", ways=("stdout full",)),
    "study run": Case("層.toml", code=3, prints=False),
    "study show": Case("{place}/study.toml -o 層"),
    "study table": Case("{place}/run"),
    "train": Case(f"--model {{place}}/bert {FIT} -o model", "model/config.json", ways=("all closed",)),
    "view": Case("{place}/m.onnx -o v.html", "v.html", prints=False),
}
JSON = [name for name, command in COMMANDS.items() if any(each.name == "as_json" for each in command.params)]
SLOW = {"export": pytest.mark.slow}
RUNS = [
    pytest.param(name, way, marks=SLOW.get(name, ())) for name, case in CASES.items() for way in case.ways
]  # fmt: skip


def test_no_command_is_forgotten() -> None:
    assert set(CASES) == set(COMMANDS)


@pytest.fixture(scope="module")
def place(shared_folder: Path) -> Path:
    """Return a folder with what commands read, which the first worker makes that asks for it."""
    folder, done = shared_folder / "terminals", shared_folder / "terminals.done"
    with FileLock(shared_folder / "terminals.lock"):
        if not done.exists():
            folder.mkdir()
            _fill(folder)
            done.touch()
    return folder


def _fill(folder: Path) -> None:
    """Write models whose names are of any script, rows, a lock, a checkpoint and what it was made from, and a run."""
    from tests.train import tiny

    model = graphs.encoder()
    for number, node in enumerate(model.graph):
        node.name = f"{SCRIPTS}/{number}"
    files.save(model, folder / "m.onnx")
    files.save(graphs.run_passes(graphs.encoder(), "opset", "clean"), folder / "other.onnx")
    np.savez(folder / "rows.npz", **graphs.feeds(graphs.masks(4, 6)["right"]))  # type: ignore[arg-type]
    (folder / "small×層.onnx").write_bytes(parsed("y = Abs(x)").SerializeToString())
    dropout = "r = Constant<value_float=0.0>() t = Constant<value = bool {1}>() y = Dropout(x, r, t)"
    (folder / "refused.onnx").write_bytes(parsed(dropout, opset=13).SerializeToString())
    assert run(["lock", "m.onnx", "--as-it-is"], folder, Way()).code == 0
    tiny.save_model(folder / "bert", layers=2)
    tiny.save_rows(folder / "rows.tsv", 32, seed=1)
    words = f"train --model bert {FIT} -o teacher".format(place=folder).split()
    trained = run(words, folder, Way())
    assert trained.code == 0, trained.said
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    (folder / "run").mkdir()
    summary.save(made_up.RUN, folder / "run")


STUDY = """
[task]
name = "text"
train = "rows.tsv"
validation = "rows.tsv"
text = "text"
[teacher]
model = "bert"
[students.small]
layers = 1
[choose]
accuracy = 10
"""

Ended = Callable[..., Ending]


@pytest.fixture(scope="module")
def ended(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Return a function that runs the case of a command, with more words after it or with others."""

    def start(name: str, *more: str, way: Way, alone: bool = False) -> Ending:
        words = [] if alone else [word.format(place=place) for word in CASES[name].arguments.split()]
        return run([*name.split(), *words, *more], tmp_path_factory.mktemp("case"), way)

    return start


@pytest.mark.parametrize(("name", "kind"), RUNS, ids=lambda value: value)
def test_a_command_ends_as_it_should_and_its_file_is_there(ended: Ended, name: str, kind: str) -> None:
    case, way = CASES[name], WAYS[kind]
    if way.out == "full" and not HAS_FULL:
        pytest.skip("there is no /dev/full")
    ending = ended(name, way=way)
    unheard = {"full": 5, "closed": 5, "unread": 141}.get(way.out, 0) if case.prints else 0
    assert ending.code == (case.code or unheard), ending.said
    assert not case.made or (ending.folder / case.made).stat().st_size
    assert "Traceback" not in ending.said
    errors = [line for line in ending.said.splitlines() if line.startswith("ffc: error: ")]
    if case.prints and way.out in ("full", "closed") and way.err == "file":
        why = "No space left on device" if way.out == "full" else "it is closed"
        assert errors == [
            f"ffc: error: cannot write to standard output: {why}; what went there is lost, what was written to files is there"
        ]
    elif way.err == "file":
        assert len(errors) == (case.code > 1)
    if way.out == "file":
        assert bool(ending.printed) == case.prints


@pytest.mark.parametrize("err", ["unread", "closed"])
def test_what_nobody_hears_of_stops_no_work(ended: Ended, err: Kind) -> None:
    """A model whose file would have got the number of a closed stream is whole too."""
    ending = ended("compile", way=Way(err=err))
    assert ending.code == 0 and "output: o.onnx" in ending.printed
    assert [node.op_type for node in files.load(ending.folder / "o.onnx").graph] == ["Abs"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_printed_in_any_encoding(ended: Ended, name: str, encoding: str) -> None:
    ending = ended(name, "--help", way=Way(encoding=encoding), alone=True)
    assert ending.code == 0 and ending.printed.startswith(f"Usage: ffc {name} ")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
@pytest.mark.parametrize("name", COMMANDS)
def test_an_error_is_a_line_in_any_encoding(ended: Ended, name: str, encoding: str) -> None:
    ending = ended(name, "--層", way=Way(encoding=encoding), alone=True)
    shown = "層" if encoding == "utf-16" else "\\u5c64"
    assert ending.code == 2 and ending.said.startswith(f"ffc: error: no such option '--{shown}'"), ending.said
    assert ending.said.count("\n") == 1


@pytest.mark.parametrize("name", [name for name in JSON if CASES[name].prints and len(CASES[name].ways) > 1])
def test_json_says_the_same_in_any_encoding(ended: Ended, name: str) -> None:
    """Numbers may be of the clock; texts are the same to the letter, whatever stands for them."""
    texts = [_texts(json.loads(ended(name, "--json", way=Way(encoding=each)).printed)) for each in ("utf-8", "ascii")]
    assert texts[0] == texts[1] != []


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in (key, *_texts(each))]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []
