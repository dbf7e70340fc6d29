"""Steps of a run: kept while nothing that they were made from changes, done again when something does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ffc.errors import GateError, InputError, UsageError
from ffc.study import steps
from ffc.study.steps import Job, Step
from tests.checkout import ROOT


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, number: int, of: int, title: str) -> None:
        self.lines.append(f"{number}/{of} {title}")

    def tell(self, line: str, done: int = 0, total: int = 0, /) -> None:
        self.lines.append(line)

    def end(self, seconds: float, *, kept: bool) -> None:
        self.lines.append("kept" if kept else "done")


class Chain:
    """Two steps in a row and one beside them; each writes its number, and the second what the first wrote, too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[str] = []
        self.numbers = {"a": 1, "b": 2, "c": 3}
        self.file = folder / "input.txt"
        self.file.write_text("in")

    def steps(self) -> list[Step]:
        return [
            self.step("a", inputs={"file": self.file}),
            self.step("b", needs=("a",)),
            self.step("c"),
        ]

    def step(self, name: str, **more: Any) -> Step:
        number = self.numbers[name]
        return Step(name, f"step {name}", 1, self.work(name, number), settings={"number": number}, **more)

    def work(self, name: str, number: int) -> Callable[[Job], Mapping[str, Any]]:
        def work(job: Job) -> Mapping[str, Any]:
            self.calls.append(name)
            assert list(job.folder.iterdir()) == [job.scratch]
            (job.scratch / "big").write_text("not kept")
            before = [(done.folder / "out.txt").read_text() for done in job.done.values()]
            # What is even writes what is even: two settings with the same result.
            (job.folder / "out.txt").write_text("".join([*before, str(number // 2)]))
            return {"half": number // 2}

        return work

    def run(self) -> list[str]:
        """Return which steps were done."""
        self.calls.clear()
        steps.run(self.steps(), self.folder / "run", Told())
        return list(self.calls)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_finished_steps_are_kept(chain: Chain) -> None:
    told = Told()
    done = steps.run(chain.steps(), chain.folder / "run", told)
    assert chain.calls == ["a", "b", "c"]
    assert told.lines == ["1/3 step a", "done", "2/3 step b", "done", "3/3 step c", "done"]
    assert (done["b"].folder / "out.txt").read_text() == "01"
    assert done["b"].result == {"half": 1}
    assert not (done["a"].folder / "scratch").exists()
    told = Told()
    again = steps.run(chain.steps(), chain.folder / "run", told)
    assert (chain.calls, again) == (["a", "b", "c"], done)
    assert told.lines == ["1/3 step a", "kept", "2/3 step b", "kept", "3/3 step c", "kept"]


def test_a_changed_setting_redoes_what_depends_on_it(chain: Chain) -> None:
    chain.run()
    chain.numbers["a"] = 4
    assert chain.run() == ["a", "b"]
    chain.numbers["c"] = 9
    assert chain.run() == ["c"]


def test_a_change_with_the_same_result_goes_no_further(chain: Chain) -> None:
    chain.numbers["a"] = 4
    chain.run()
    chain.numbers["a"] = 5
    assert chain.run() == ["a"]


def test_a_changed_file_redoes_what_reads_it(chain: Chain) -> None:
    chain.run()
    chain.file.write_text("other")
    assert chain.run() == ["a"]  # which comes to the same


def test_a_raised_version_redoes_a_step(chain: Chain) -> None:
    chain.run()
    newer = [Step("c", "step c", 2, chain.work("c", 3), settings={"number": 3})]
    steps.run(newer, chain.folder / "run", Told())
    assert chain.calls == ["a", "b", "c", "c"]


@pytest.mark.parametrize("harm", ["lost", "cut", "record"])
def test_a_step_whose_files_are_damaged_is_done_again(chain: Chain, harm: str) -> None:
    chain.run()
    place = chain.folder / "run" / "b"
    if harm == "lost":
        (place / "out.txt").unlink()
    elif harm == "cut":
        (place / "out.txt").write_text("")
    else:
        (place / "step.json").write_text('{"format": "ffc.step/1", "digest"')
    assert chain.run() == ["b"]


def test_a_step_that_fails_is_done_again_and_those_before_are_kept(chain: Chain) -> None:
    def fail(job: Job) -> Mapping[str, Any]:
        (job.folder / "half.txt").write_text("half")
        raise GateError("it is not good enough")

    broken = [*chain.steps()[:1], Step("b", "step b", 1, fail, settings={"number": 2}, needs=("a",))]
    with pytest.raises(GateError, match=r"^step b: it is not good enough$"):
        steps.run(broken, chain.folder / "run", Told())
    assert chain.run() == ["b", "c"]
    assert not (chain.folder / "run" / "b" / "half.txt").exists()


def test_a_killed_process_leaves_what_it_has_finished(chain: Chain) -> None:
    chain.run()
    chain.numbers["b"] = 8
    script = f"""
import os, signal
from pathlib import Path
from tests.study.test_steps import Chain, Told
from ffc.study import steps
chain = Chain(Path({str(chain.folder)!r}))
chain.numbers["b"] = 8
def die(job):
    (job.folder / "out.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
plan = chain.steps()
plan[1] = steps.Step("b", "step b", 1, die, settings={{"number": 8}}, needs=("a",))
steps.run(plan, chain.folder / "run", Told())
"""
    root = ROOT
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == -9
    assert [state for _, state, _ in steps.states(chain.steps(), chain.folder / "run")] == ["done", "stale", "done"]
    assert chain.run() == ["b"]


def test_states_tell_what_a_run_would_do(chain: Chain) -> None:
    folder = chain.folder / "run"
    assert [state for _, state, _ in steps.states(chain.steps(), folder)] == ["to do"] * 3
    assert not folder.exists()
    chain.run()
    assert [state for _, state, _ in steps.states(chain.steps(), folder)] == ["done"] * 3
    chain.numbers["a"] = 4
    assert [state for _, state, _ in steps.states(chain.steps(), folder)] == ["stale", "stale", "done"]
    assert chain.calls == ["a", "b", "c"]


def test_two_runs_in_one_folder_are_one_too_many(chain: Chain) -> None:
    def inside(job: Job) -> Mapping[str, Any]:
        chain.run()
        return {}

    with pytest.raises(UsageError, match=r"another run is at work in .*run; wait for it, or choose another folder"):
        steps.run([Step("x", "step x", 1, inside)], chain.folder / "run", Told())


def test_a_folder_that_cannot_be_written(chain: Chain) -> None:
    with pytest.raises(UsageError, match=r"cannot write to the folder .*input.txt: .*; choose another with -o"):
        steps.run(chain.steps(), chain.file, Told())


def test_a_folder_with_other_files_is_left_alone(chain: Chain) -> None:
    checkpoint = chain.folder / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "tokenizer.json").touch()
    with pytest.raises(UsageError, match=r"checkpoint holds files and no run of a study; choose another with -o"):
        steps.run(chain.steps(), checkpoint, Told())
    assert [file.name for file in checkpoint.iterdir()] == ["tokenizer.json"]


def test_links_to_folders_are_followed_and_standard_output_is_none(tmp_path: Path, chain: Chain) -> None:
    with pytest.raises(UsageError, match="a folder cannot be written to standard output; name one with -o"):
        steps.run([], Path("-"), Told())
    (tmp_path / "run").symlink_to("elsewhere")
    assert chain.run() == ["a", "b", "c"] and chain.run() == []
    assert (tmp_path / "elsewhere" / "a" / "out.txt").is_file()


def test_a_step_that_is_done_again_leaves_what_a_link_in_its_place_names(tmp_path: Path, chain: Chain) -> None:
    chain.run()
    (tmp_path / "run" / "a").rename(tmp_path / "moved")
    (tmp_path / "run" / "a").symlink_to(tmp_path / "moved")
    assert chain.run() == []
    chain.numbers["a"] = 4
    assert chain.run() == ["a", "b"]
    assert (tmp_path / "moved" / "out.txt").read_text() == "0"
    assert (tmp_path / "run" / "a" / "out.txt").read_text() == "2"


def test_a_path_that_is_not_there_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*gone\.json: there is no such file"):
        steps.digest_of(tmp_path / "gone.json")


def test_a_folder_is_told_by_names_and_contents(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_text("same")
    digest = steps.digest_of(tmp_path / "one")
    assert digest == steps.digest_of(tmp_path / "two")
    (tmp_path / "two" / "deep" / "file").rename(tmp_path / "two" / "file")
    assert digest != steps.digest_of(tmp_path / "two")
