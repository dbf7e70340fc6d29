"""Where a compiled model goes, and what names a model that torch saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffc.errors import UsageError
from ffc.folders import contents
from ffc.folders.places import Place, is_saved, place
from tests.folders.test_contents import embeds


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("saved").mkdir()
    Path("there").mkdir()
    Path("model.onnx").touch()


@pytest.mark.parametrize(
    ("model", "saved"),
    [
        ("saved", True),
        ("saved/", True),
        ("package:minilm", True),
        ("org/name", True),
        ("org/name-v1.5", True),
        ("model.onnx", False),
        ("no.onnx", False),
        ("no", False),
        ("org/name.onnx", False),
        ("org/recipe.toml", False),
        ("saved/no", False),
        ("./no", False),
        ("a/b/c", False),
    ],
)
def test_a_saved_model_is_a_folder_a_package_or_a_name_on_the_hub(model: str, saved: bool) -> None:
    assert is_saved(model) is is_saved(Path(model)) is saved


@pytest.mark.parametrize(
    ("out", "model", "wanted"),
    [
        (None, "model.onnx", ("model.ffc.onnx", False)),
        ("x.onnx", "model.onnx", ("x.onnx", False)),
        ("x", "model.onnx", ("x", False)),
        ("x/", "model.onnx", ("x", True)),
        ("there", "model.onnx", ("there", True)),
        ("x", "saved", ("x", True)),
        ("x.onnx", "saved", ("x.onnx", False)),
        ("x.onnx/", "saved", ("x.onnx", True)),
        ("-", "saved", ("-", False)),
        ("/dev/null", "saved", ("/dev/null", False)),
        ("x", "package:minilm", ("x", True)),
        (None, "package:minilm", ("minilm.ffc", True)),
        (None, "org/name-v1.5", ("name-v1.5.ffc", True)),
    ],
)
def test_an_output_is_a_file_or_a_folder(out: str | None, model: str, wanted: tuple[str, bool]) -> None:
    found = place(out, model)
    assert (str(found.path), found.folder) == wanted
    assert found.model == (found.path / "model.onnx" if found.folder else found.path)


def test_a_folder_goes_beside_the_one_it_was_made_of() -> None:
    assert place(None, "saved") == Place(Path("saved.ffc").resolve(), True)
    assert place(None, "saved/") == place(None, "there/../saved")


def test_places_that_cannot_be_written_are_refused_before_any_work() -> None:
    (Path("there") / "model-00001-of-00002.safetensors").touch()
    for path, message in {
        "model.onnx": "the output 'model.onnx' is a file; name a folder with -o",
        "no/deep": "the folder 'no' of the output does not exist; create it first",
        "there": "the folder 'there' holds a model of torch, model-00001-of-00002.safetensors, whose config",
    }.items():
        with pytest.raises(UsageError, match=message):
            Place(Path(path), True).check()
    Place(Path("new"), True).check()
    assert not Path("new").exists()


def test_a_link_that_leads_nowhere_yet_is_checked_where_it_leads() -> None:
    for link, to in {"to-new": "new", "to-none": "no/deep", "round": "round"}.items():
        Path(link).symlink_to(to)
    Place(Path("to-new"), True).check()
    with pytest.raises(UsageError, match=r"the folder '.*no' of the output does not exist"):
        Place(Path("to-none"), True).check()
    with pytest.raises(UsageError, match="the folder 'round' cannot be written: Too many levels of symbolic links"):
        Place(Path("round"), True).check()


def test_a_model_of_sentence_transformers_is_not_replaced_but_one_of_ours_is() -> None:
    file = Path("there/modules.json")
    file.write_text('[{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]')
    with pytest.raises(UsageError, match=r"holds a model of sentence-transformers, whose modules\.json would be replaced"):
        Place(Path("there"), True).check()
    file.write_bytes(contents.with_modules({contents.TOKENIZER: b""}, embeds())["modules.json"])
    Place(Path("there"), True).check()


def test_standard_output_is_no_folder_where_one_is_called_so() -> None:
    Path("-").mkdir()
    assert place("-", "model.onnx") == Place(Path("-"), False) and place("./-", "model.onnx").folder
