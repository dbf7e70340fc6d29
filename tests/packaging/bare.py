"""Builds wheel and sdist, looks at what they hold, and tries each in an environment that holds nothing else.

    python -m tests.packaging.bare build/dist

The environments have no torch. In each, the command `ffc` compiles a small encoder, and onnxruntime runs the result.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from pathlib import Path, PurePosixPath

from tests.checkout import ROOT

SCRIPT = """
import importlib.util, sys
import numpy as np, onnxruntime as ort
import ffc

assert ffc.__file__.startswith(sys.prefix), f"{ffc.__file__} is not of this environment"
found = [name for name in ("torch", "transformers", "tests") if importlib.util.find_spec(name)]
assert not found, f"{found} can be imported here"
session = ort.InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
ids = np.array([[2, 7, 9, 3]])
inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
assert all(np.isfinite(output).all() for output in session.run(None, inputs))
operators = sorted({node.op_type for node in ffc.load("out.onnx").graph})
assert "MatMulIntegerToFloat" in operators, operators
"""
"""Run in the environment once the command has written ``out.onnx``."""


def main(folder: Path) -> None:
    """Build both into `folder`, and try them."""
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)  # the wheel is built of the sdist
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "tiny.onnx"
        save_model(model)
        for archive in (wheel, sdist):
            started = time.perf_counter()
            try_in_bare_environment(archive, model, Path(place) / archive.suffix.strip("."))
            print(f"{archive.name}: installs, compiles and runs ({time.perf_counter() - started:.0f} s)")


def check_wheel(wheel: Path) -> None:
    """Hold the files of the wheel against those of the checkout: the packages, and nothing else."""
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expect("the wheel", found, set(package_files().values()))
    about = {PurePosixPath(name).name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" in name}
    expect("its .dist-info", about & {"LICENSE", "entry_points.txt"}, {"LICENSE", "entry_points.txt"})


def check_sdist(sdist: Path) -> None:
    """Hold the files of the sdist against what building takes: sources, documents that it names, and nothing else."""
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    found = {name for name in names if not name.startswith("fastformers_compiler.egg-info/")}
    needed = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}
    expect("the sdist", found, set(package_files()) | needed | {"PKG-INFO", "setup.cfg"})  # setuptools writes the last two


def package_files() -> dict[str, str]:
    """Return where every file of the packages lies in the checkout, and where in the wheel."""
    found = [path for part in ("ffc", "passes") for path in (ROOT / part).rglob("*") if path.is_file()]
    names = [path.relative_to(ROOT).as_posix() for path in found if path.parent.name != "__pycache__"]
    return {name: name if name.startswith("ffc/") else f"ffc/{name}" for name in names}


def expect(what: str, found: set[str], wanted: set[str]) -> None:
    """Stop where two lists of files differ."""
    if found != wanted:
        sys.exit(f"{what} lacks {sorted(wanted - found)} and should not have {sorted(found - wanted)}")


def save_model(path: Path) -> None:
    """Write a small encoder, as an exporter would."""
    import ffc
    from tests.graphs import encoder

    ffc.save(encoder(layers=2), path)


def try_in_bare_environment(archive: Path, model: Path, place: Path) -> None:
    """Install one archive into a new environment, and compile and run a model there."""
    venv.create(place / "env", with_pip=True)
    binaries = place / "env" / "bin"
    pip = [binaries / "python", "-I", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "install", archive.resolve(), cwd=place)
    run(binaries / "ffc", "--version", cwd=place)
    run(binaries / "ffc", "passes", cwd=place)
    pipeline = ("--passes", "fuse,int8", "-o", "out.onnx", "--report", "report.html")
    run(binaries / "ffc", "compile", model, *pipeline, cwd=place)
    run(binaries / "python", "-I", "-c", SCRIPT, cwd=place)


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command quietly, out of reach of this checkout; stop with what it said if it fails."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=outside, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command[:4]))} ... failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
