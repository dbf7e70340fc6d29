"""ffc's own locks: what it makes of the real MiniLM, and that the lock of every golden graph can be read."""

from pathlib import Path

import pytest

from ffc.ci.lock import lock as locks
from ffc.ci.pytest_plugin import FfcLock
from tests.checkout import ROOT

GOLDEN = ROOT / "tests" / "golden"


def test_the_compiled_minilm(minilm: Path, ffc_lock: FfcLock) -> None:
    made = ffc_lock(minilm, "fuse,int8", lock=GOLDEN / "minilm.ffc.lock")
    assert made.making.pipeline == "fuse,int8"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.ffc.lock")), ids=lambda path: path.name)
def test_every_lock_reads_back_as_it_was_written(path: Path) -> None:
    lock = locks.load(path)
    assert locks.unparse(lock) == path.read_text(encoding="utf-8")
    assert lock.snapshot(path.name).graph.nodes
