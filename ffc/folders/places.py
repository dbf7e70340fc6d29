"""Where a model comes from and where the compiled one goes: a file, or a folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ffc.errors import UsageError
from ffc.graph.files import targets
from ffc.graph.files.destination import STANDARD_OUTPUT, named
from ffc.settings import packages

__all__ = ["MODEL", "MODULES", "OUR_MODULES", "Place", "is_saved", "place", "says_folder"]

MODEL = "model.onnx"
"""The file of the model in a folder."""

MODULES = "modules.json"
"""The file by which sentence-transformers knows a model."""

OUR_MODULES = b'"ffc.'
"""What is in that file where ffc wrote it: the class that it names."""

_ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OURS = ".ffc"
_OF_TORCH = ("model*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Place:
    """Where a compiled model goes.

    Attributes:
        path: The file, or the folder.
        folder: Whether it is a folder.
    """

    path: Path
    folder: bool

    @property
    def model(self) -> Path:
        """The file of the model."""
        return self.path / MODEL if self.folder else self.path

    def check(self, option: str = "-o") -> None:
        """Refuse, before any work, a place where nothing can be written or another model would be harmed.

        Raises:
            UsageError: If it is one.
        """
        if not self.folder:
            targets.check_file(self.path, advice=f" with {option}")
            return
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"the output '{self.path}' is a file; name a folder with {option}")
        targets.check_no_stream(self.path, option=option)
        real = Path(os.path.realpath(self.path))  # behind a link that leads nowhere yet, too
        linked = self.path.is_symlink() and not real.is_dir()
        shown = self.path if real.is_dir() else real.parent if linked else self.path.parent
        targets.check_folder(real if real.is_dir() else real.parent, shown=shown, option=option)
        if weights := [file.name for pattern in _OF_TORCH for file in self.path.glob(pattern)]:
            raise UsageError(
                f"the folder '{self.path}' holds a model of torch, {weights[0]}, whose config would be replaced; "
                f"name another folder with {option}"
            )
        modules = self.path / MODULES
        if modules.is_file() and OUR_MODULES not in modules.read_bytes():
            raise UsageError(
                f"the folder '{self.path}' holds a model of sentence-transformers, whose {MODULES} would be replaced; "
                f"name another folder with {option}"
            )


def is_saved(model: object) -> bool:
    """Return whether a model is named by where it was saved for torch: a folder, ``package:NAME``, or ``org/name``.

    A name is taken for one on the hub where nothing lies at that path, nor could: its first part is no folder here.
    """
    if not isinstance(model, str | Path):
        return False
    text = os.fspath(model)
    if text.startswith(packages.PREFIX) or (text and Path(text).is_dir()):  # to `Path`, nothing is the current folder
        return True
    hub = _ON_THE_HUB.fullmatch(text) and Path(text).suffix not in (".onnx", ".toml")
    return bool(hub) and not Path(text).exists() and not Path(text).parent.is_dir()


def says_folder(text: str | os.PathLike[str]) -> bool:
    """Return whether a text names a folder, by its end or because there is one."""
    return os.fspath(text).endswith(("/", os.sep)) or Path(text).is_dir()


def place(out: str | os.PathLike[str] | None, model: str | Path | None) -> Place:
    """Return where a compiled model goes.

    Args:
        out: What was asked for. A folder is one that exists or whose name ends in ``/``, and of a model that is a
            folder any new name but one in ``.onnx``. Where nothing was asked for, it lies beside the model:
            ``<stem>.ffc.onnx``, or the folder ``<name>.ffc``; for a package or a name on the hub, in the current one.
        model: The model; None for one in memory, for which something was asked for.
    """
    saved = is_saved(model)
    if out is None:
        assert model is not None
        there = Path(model)
        if not saved:
            return Place(there.parent / f"{there.stem}{_OURS}.onnx", False)
        near = there.resolve() if there.is_dir() else Path(os.fspath(model).removeprefix(packages.PREFIX))
        return Place((near.parent if there.is_dir() else Path()) / f"{near.name}{_OURS}", True)
    path = named(out)
    other = path.suffix == ".onnx" or path.exists() or path == STANDARD_OUTPUT  # a file or a device
    return Place(path, path != STANDARD_OUTPUT and (says_folder(out) or (saved and not other)))
