"""Write the lock of one model with several versions of onnx, each in an environment of its own, and compare them.

Every version reads and compiles the same file; two locks may differ in the line that records versions, and in nothing
else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from random_bert import export
from record import save

from ffc.runtime.machine import machine

VERSIONS = ("1.20.1", "1.21.0", "1.22.0", "1.23.0", "1.23.2")
LAYERS, WIDTH = 2, 128
ROOT = Path(__file__).resolve().parents[2]


def lock(model: Path, version: str, folder: Path) -> str:
    """Return the lock of `model` by one version of onnx, without the line of versions."""
    place, out = folder / version, folder / f"{version}.ffc.lock"
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(ROOT)], check=True)
    subprocess.run([*pip, "--no-deps", f"onnx=={version}"], check=True)  # older than ffc asks for
    environment = {**os.environ, "PYTHONHASHSEED": version.replace(".", "")}
    subprocess.run([python, "-m", "ffc", "lock", str(model), "-o", str(out)], check=True, env=environment)
    lines = out.read_text(encoding="utf-8").splitlines()
    said = next(line for line in lines if line.startswith("versions "))
    if f"onnx {version}," not in said:
        raise SystemExit(f"wanted onnx {version}, and the lock says {said!r}")
    return "\n".join(line for line in lines if line != said)


def main() -> None:
    """Compare, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="Where to write the record.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.onnx"
        export(model, LAYERS, WIDTH)
        locks = {version: lock(model, version, folder) for version in VERSIONS}
    newest = locks[VERSIONS[-1]]
    equal = {version: text == newest for version, text in locks.items()}
    for version, same in equal.items():
        print(f"onnx {version}: {'equal' if same else 'DIFFERS'}")
    if given.json:
        save(given.json, "ffc.lock-versions/1", machine(), 0, lines=newest.count("\n") + 1, equal=equal)
    sys.exit(0 if all(equal.values()) else 1)


if __name__ == "__main__":
    main()
