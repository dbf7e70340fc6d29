"""A folder appears whole or not at all, and what else is in an existing one stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.errors import InputError, UsageError
from ffc.folders.writing import write
from ffc.graph import files
from ffc.graph.files import publish
from tests.graphs import of_program

CONTENTS = {"config.json": b"{}\n", "tokenizer.json": b"words"}


def relu() -> ir.Model:
    return of_program(lambda op, x: op.Relu(x), {"x": np.ones(3, np.float32)}, {}, {})


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


WRITTEN = {"config.json", "tokenizer.json", "model.onnx", "onnx", "onnx/model.onnx"}


def test_a_new_folder_holds_the_model_and_what_goes_with_it(tmp_path: Path) -> None:
    write(tmp_path / "out", relu(), CONTENTS)
    assert listing(tmp_path) == {"out", *(f"out/{name}" for name in WRITTEN)}
    assert (tmp_path / "out/config.json").read_bytes() == b"{}\n"
    link = tmp_path / "out/onnx/model.onnx"
    assert os.readlink(link) == "../model.onnx" and ffc.load(link).graph[0].op_type == "Relu"


def test_what_else_is_in_a_folder_stays_and_ours_is_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "notes.txt").write_text("mine")
        (tmp_path / "config.json").write_text("old")
        write(tmp_path, relu(), CONTENTS)
        assert listing(tmp_path) == {"notes.txt", *WRITTEN}
        assert (tmp_path / "config.json").read_bytes() == b"{}\n"


def test_a_model_where_transformers_js_looks_is_not_replaced_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_text("theirs")
    write(tmp_path, relu(), {})
    assert (tmp_path / "onnx/model.onnx").read_text() == "theirs"


def test_a_model_whose_weights_lie_apart_is_not_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = files.save
    monkeypatch.setattr(files, "save", lambda model, path: save(model, path, external=True))
    write(tmp_path / "out", relu(), {})
    found = listing(tmp_path / "out")
    assert len(found) == 2 and "model.onnx" in found and any(name.endswith(".data") for name in found)


def test_what_cannot_be_saved_leaves_nothing_of_a_new_folder_and_an_old_one_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise InputError("cannot save: no space left")

    monkeypatch.setattr(files, "save", full)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.json").write_text("old")
    for name in ("new", "old"):
        with pytest.raises(InputError, match="no space left"):
            write(tmp_path / name, relu(), CONTENTS)
    assert listing(tmp_path) == {"old", "old/config.json"} and (tmp_path / "old/config.json").read_text() == "old"


def test_a_place_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*/no/out: No such file or directory; name another folder"):
        write(tmp_path / "no/out", relu(), CONTENTS)


def test_a_new_folder_may_have_a_name_as_long_as_names_get_or_be_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("n" * 255)
    write(tmp_path / "link", relu(), CONTENTS)
    assert os.readlink(tmp_path / "link") == "n" * 255 and (tmp_path / ("n" * 255) / "model.onnx").is_file()
    assert set(os.listdir(tmp_path)) == {"link", "n" * 255}


def test_a_folder_that_another_process_made_meanwhile_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, out = files.save, tmp_path / "out"

    def meanwhile(model: ir.Model, path: Path) -> None:
        out.mkdir(exist_ok=True)
        (out / "theirs").touch()
        save(model, path)

    monkeypatch.setattr(files, "save", meanwhile)
    write(out, relu(), CONTENTS)
    assert listing(out) == {each.removeprefix("out/") for each in WRITTEN} | {"theirs"}
    assert listing(tmp_path) == {"out", *(f"out/{each}" for each in listing(out))}


@pytest.mark.skipif(os.name != "posix", reason="needs locks of files")
def test_what_a_killed_process_left_of_a_folder_goes_and_what_one_is_at_stays(tmp_path: Path) -> None:
    left = tmp_path / ".ffc-0123456789ab.tmp"
    left.mkdir()
    (left / "model.onnx").touch()
    old, new = tmp_path / ".ffc-0.tmp", tmp_path / ".ffc-1.tmp"  # which may not be locked yet
    old.mkdir()
    os.utime(old, (0, 0))
    new.mkdir()
    with publish.draft(tmp_path / "other") as draft:
        (draft / "config.json").touch()
        write(tmp_path / "out", relu(), {})
        assert set(os.listdir(tmp_path)) == {"out", draft.name, new.name}
    assert set(os.listdir(tmp_path)) == {"out", new.name}
