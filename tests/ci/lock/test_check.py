"""Checks: what fails, what passes, what is written, and how each ends on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc import cli
from ffc.ci.lock import check as checks
from ffc.ci.lock import lock as locks
from ffc.ci.lock.check import Check
from ffc.ci.lock.policy import Allowance, Policy
from ffc.compiler.targets import processor
from ffc.errors import InputError
from ffc.pruning import by_norm
from tests.checkout import ROOT
from tests.ci.lock import small

PLAIN = None
"""Lock the model as it is, which takes no compile."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a model and its lock, and go there."""
    monkeypatch.chdir(tmp_path)
    checks.lock(small.save(Path("m.onnx")), PLAIN)
    return tmp_path


def checked(edit: small.Edit | None = None, policy: Policy | None = None, *, seed: int = 0) -> Check:
    """Write the model of the project anew, edited, and check it."""
    small.save(Path("m.onnx"), edit, seed=seed)
    return checks.check("m.ffc.lock", policy=policy or Policy())


def failing(done: Check) -> list[str]:
    return [failure.kind for failure in done.failures]


def both(*edits: small.Edit) -> small.Edit:
    def edit(model: small.ir.Model) -> None:
        for each in edits:
            each(model)

    return edit


def drop_gelu(model: small.ir.Model) -> None:
    """Take an activation out: less of a model."""
    (gelu,) = small.nodes(model, "Gelu")
    assert gelu.inputs[0] is not None
    gelu.outputs[0].replace_all_uses_with(gelu.inputs[0])
    model.graph.remove(gelu, safe=True)


class TestWhatFails:
    """What a policy lets pass, and what it does not."""

    @pytest.mark.parametrize(
        ("edit", "kinds"),
        [
            (None, []),
            (small.change_epsilon, ["attribute"]),
            (small.insert("Relu"), ["structure"]),
            (small.rename_output, ["interface"]),
            (small.scale_weights(1.5), ["weight-value"]),
        ],
    )  # fmt: skip
    def test_every_kind_of_change_fails_by_default(self, edit: small.Edit | None, kinds: list[str], project: Path) -> None:
        done = checked(edit)
        assert failing(done) == kinds and done.passed == (not kinds)

    def test_a_kind_that_the_policy_leaves_out_passes(self, project: Path) -> None:
        done = checked(small.change_epsilon, Policy(fail=("structure", "interface")))
        assert done.passed and not done.diff.equal

    def test_an_improvement_passes_and_asks_for_a_new_lock(self, project: Path) -> None:
        done = checked(drop_gelu)
        assert done.passed and done.improved and done.diff.changes
        assert failing(checked(drop_gelu, Policy(improvements=False))) == ["structure"]

    @pytest.mark.parametrize(
        ("edit", "kinds"),
        [
            (small.rename_output, {"structure", "interface"}),
            (small.scale_weights(1.5), {"weight-value"}),
            (small.insert("Relu"), {"structure"}),  # as many nodes as before: another model, no better one
        ],
    )  # fmt: skip
    def test_an_improvement_excuses_nothing_else(self, edit: small.Edit, kinds: set[str], project: Path) -> None:
        done = checked(both(edit, drop_gelu))
        assert set(failing(done)) == kinds and not done.improved

    @pytest.mark.parametrize(("factor", "passes"), [(1 + 1e-3, True), (1.2, False)])
    def test_weights_may_move_as_far_as_the_policy_says(self, factor: float, passes: bool, project: Path) -> None:
        assert checked(small.scale_weights(factor), Policy(weights=0.01)).passed == passes
        assert not checked(small.scale_weights(factor)).passed

    @pytest.mark.parametrize(("allowed", "passes"), [("80", True), ("78", False), ("+2%", True), ("+0%", False)])
    def test_a_budget_is_absolute_or_over_the_lock(self, allowed: str, passes: bool, project: Path) -> None:
        assert locks.load("m.ffc.lock").cost.nodes == 78
        done = checked(small.insert("Relu"), Policy(fail=("cost",), budget={"nodes": Allowance(allowed)}))
        assert done.passed == passes
        if not passes:
            assert failing(done) == ["cost"]
            assert re.fullmatch(rf"79 nodes are over the budget of 78 \({re.escape(allowed)}\)", done.failures[0].message)

    def test_a_budget_holds_for_a_model_that_is_as_its_lock(self, project: Path) -> None:
        assert failing(checked(policy=Policy(budget={"nodes": Allowance("10")}))) == ["cost"]

    def test_outputs_are_held_to_the_numbers_of_the_policy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        checks.lock(small.save(Path("m.onnx")), "int8")
        done = checks.check("m.ffc.lock", policy=Policy(difference=0.5, cosine=0.5))
        assert done.passed and done.verdict is not None and done.verdict.difference > 0
        done = checks.check("m.ffc.lock", policy=Policy(difference=1e-9, cosine=1.0))
        assert failing(done) == ["numerics", "numerics"]


class TestDecided:
    """What was decided where a lock was written is decided the same everywhere."""

    def test_another_processor_compiles_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        model = small.save(Path("m.onnx"))
        texts = {}
        for overflows in (False, True):
            monkeypatch.setattr(processor, "overflows", lambda overflows=overflows: overflows)
            texts[overflows] = checks.lock(model, "fuse,int8{range=auto}", out=f"{overflows}.ffc.lock")
        assert texts[True].making.decided.endswith("range=narrow}")
        assert texts[False].making.decided.endswith("range=full}")
        assert texts[True].weights.digest != texts[False].weights.digest
        assert checks.check("False.ffc.lock").diff.equal  # this processor overflows, or says so
        monkeypatch.setattr(processor, "overflows", lambda: False)
        assert checks.check("True.ffc.lock").diff.equal


class TestPlaces:
    """A lock names files as seen from its own folder, so that a check may run anywhere."""

    @pytest.mark.parametrize("named", [True, False])
    def test_passes_of_the_users_own_are_found_again(
        self, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("models").mkdir()
        Path("mine.py").write_bytes((ROOT / "examples/own_pass/fast_gelu.py").read_bytes())
        model = small.save(Path("models/m.onnx"))
        if named:
            checks.lock(model, "./mine.py:FastGelu")
        else:
            checks.lock(model, "fast-gelu", plugins=["mine.py"])
        assert "\nplugin ../mine.py" in Path("models/m.ffc.lock").read_text(encoding="utf-8")
        monkeypatch.chdir("models")
        assert checks.check("m.ffc.lock").diff.equal

    def test_files_in_options_are_found_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("models").mkdir()
        model = small.save(Path("models/m.onnx"))
        by_norm(ffc.find_blocks(ffc.load(model))).save("scores.safetensors")
        checks.lock(model, "prune{importance=scores.safetensors heads=2 ffn=0.5}")
        text = Path("models/m.ffc.lock").read_text(encoding="utf-8")
        assert "importance=../scores.safetensors" in text and str(tmp_path) not in text
        monkeypatch.chdir("models")
        assert checks.check("m.ffc.lock").diff.equal


class TestAccept:
    """`--accept` writes what changed, and nothing else."""

    def test_writes_the_lock_of_a_changed_model(self, project: Path) -> None:
        done = checked(small.change_epsilon)
        assert not done.passed and checks.accept(done)
        assert checks.check("m.ffc.lock").diff.equal

    def test_writes_nothing_where_only_versions_differ(self, project: Path) -> None:
        path = Path("m.ffc.lock")
        older = re.sub(r"onnxruntime \S+", "onnxruntime 1.0.0", path.read_text(encoding="utf-8"))
        path.write_text(older, encoding="utf-8")
        done = checks.check(path)
        assert done.passed and not checks.accept(done)
        assert path.read_text(encoding="utf-8") == older

    def test_writes_nothing_where_a_check_passes(self, project: Path) -> None:
        before = Path("m.ffc.lock").stat().st_mtime_ns
        assert cli.main(["check", "--accept"]) == 0
        assert Path("m.ffc.lock").stat().st_mtime_ns == before


def ran(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run the command line, and return the exit code, what it printed, and the line of the error, if any."""
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("ffc: error: ")]
    assert len(errors) == (code > 1)
    return code, out, "".join(errors)


class TestCommand:
    """Exit codes and messages of ``ffc lock`` and ``ffc check``."""

    def test_passes_with_0_and_fails_with_1(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert ran(["check"], capsys)[:2] == (0, "m.ffc.lock: passes, no changes\n")
        small.save(Path("m.onnx"), small.change_epsilon)
        code, out, _ = ran(["check", "m.ffc.lock"], capsys)
        assert code == 1 and "epsilon: 1e-12 → 0.001" in out and "`ffc check --accept` takes it" in out
        code, out, _ = ran(["check", "--accept"], capsys)
        assert code == 0 and "accepted, 1 change: 1 attribute; commit the lock" in out
        assert ran(["check"], capsys)[0] == 0

    def test_model_takes_the_place_of_the_one_that_the_lock_names(
        self, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        small.save(Path("new.onnx"), small.change_epsilon)
        assert ran(["check", "--model", "new.onnx"], capsys)[0] == 1
        assert ran(["check"], capsys)[0] == 0

    def test_a_model_that_runs_on_rows_alone_is_checked_on_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        body = "<int64[1] n = {10007}> { t = Reshape(x, n) y = Relu(t) }"
        text = f'<ir_version: 10, opset_import: ["" : 23]> g (float[a, b] x) => (float[c] y) {body}'
        Path("odd.onnx").write_bytes(ir.to_proto(ir.from_onnx_text(text)).SerializeToString())
        np.savez("rows.npz", x=np.ones((1, 10007), np.float32))
        assert ran(["lock", "odd.onnx", "--passes", "clean", "--data", "rows.npz"], capsys)[0] == 0
        assert ran(["check", "--data", "rows.npz"], capsys)[0] == 0
        assert ran(["check"], capsys)[0] == 3

    def test_improvements_are_told(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        small.save(Path("m.onnx"), drop_gelu)
        code, out, _ = ran(["check"], capsys)
        assert code == 0 and "passes, it costs less than the lock says" in out and "`ffc check --accept` keeps that" in out

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            ("check n.ffc.lock", 3, "lock n.ffc.lock does not exist; write it with `ffc lock`"),
            ("check lost.ffc.lock", 3, "is of the model lost.onnx, which does not exist; name it with --model"),
            ("check m.ffc.lock --model no.onnx", 3, "no.onnx, which does not exist"),
            ("check m.onnx", 3, "lock m.onnx cannot be read"),
            ("check broken.ffc.lock", 3, "truncated"),
            ("check m.ffc.lock --policy policy.toml", 2, "policy.toml:2: unknown key 'budgets'; did you mean 'budget'"),
            ("check m.ffc.lock --policy empty.toml", 3, "has no table [tool.ffc.check]"),
            ("check m.ffc.lock --report r.txt", 2, "suffix '.txt'; known: .json, .md, .html, .xml, .sarif"),
            ("check m.ffc.lock --report m.ffc.lock/r.md", 2, "m.ffc.lock"),
            ("check --model m.onnx m.ffc.lock lost.ffc.lock", 2, "--model is for one lock, and there are 2"),
            ("check --data rows.npz m.ffc.lock lost.ffc.lock", 2, "--data is for one lock, and there are 2"),
            ("lock .", 3, "it is a folder; name the .onnx file in it"),
            ("lock m.onnx -o m.onnx", 2, "m.onnx"),
            ("lock no.onnx", 3, "no such file"),
            ("lock m.onnx --passes fuze", 2, "did you mean 'fuse'"),
        ],
    )  # fmt: skip
    def test_mistakes_are_one_line_with_an_exit_code(
        self, arguments: str, code: int, said: str, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = Path("m.ffc.lock").read_text(encoding="utf-8")
        Path("lost.ffc.lock").write_text(text.replace("m.onnx", "lost.onnx"), encoding="utf-8")
        Path("broken.ffc.lock").write_text(text[:-5], encoding="utf-8")
        Path("policy.toml").write_text("[tool.ffc.check]\nbudgets = {}\n", encoding="utf-8")
        Path("empty.toml").write_text("", encoding="utf-8")
        found, _, error = ran(arguments.split(), capsys)
        assert found == code and said in error

    def test_what_is_wrong_with_one_lock_hides_nothing_of_the_others(
        self, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("a.ffc.lock").write_text("", encoding="utf-8")
        small.save(Path("m.onnx"), small.change_epsilon)
        code, out, error = ran(["check", "--report", "r.md"], capsys)
        assert code == 3 and error.endswith("lock a.ffc.lock is empty or truncated; write it again with `ffc lock`, or take it from version control")
        assert "epsilon: 1e-12 → 0.001" in out
        text = Path("r.md").read_text(encoding="utf-8")
        assert "2 of 2 locks fail" in text and "could not be checked: lock a.ffc.lock is empty" in text

    def test_a_folder_without_locks_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        code, _, error = ran(["check"], capsys)
        assert code == 2 and "no lock matches" in error and "write one with `ffc lock`" in error


@pytest.mark.parametrize("name", ["m\nx.onnx", "m\x1b[31m.onnx"])
def test_a_name_that_would_break_the_lines_of_a_lock_is_refused(name: str, tmp_path: Path) -> None:
    path = small.save(tmp_path / name)
    with pytest.raises(InputError, match="cannot be named in a lock"):
        checks.lock(path, PLAIN)
    assert not list(tmp_path.glob("*.lock"))
