"""Importance files: what is written is read back, and what is broken is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ffc.errors import InputError, UsageError
from ffc.graph.blocks.structure import Blocks, Layer
from ffc.pruning import Importance, LayerImportance
from ffc.pruning.importance import blocks_hash

GOOD = {"layers.0.heads": np.ones(4, np.float32), "layers.0.ffn": np.ones(6, np.float32)}
FORMAT = {"format": "ffc.importance/1"}


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    layers = (LayerImportance(scores(3, 1), scores(0.5, 2, 1)), LayerImportance(scores(), scores(1)))
    made = Importance(layers, "taylor", data="boolq", samples=128, seed=7, model="ab" * 32)
    made.save(tmp_path / "i.safetensors")
    read = Importance.load(tmp_path / "i.safetensors")
    assert [layer.heads.tolist() for layer in read.layers] == [[3, 1], []]
    assert [layer.ffn.tolist() for layer in read.layers] == [[0.5, 2, 1], [1]]
    assert (read.method, read.data, read.samples, read.seed, read.model) == ("taylor", "boolq", 128, 7, "ab" * 32)


def test_layers_are_ordered_by_number_and_not_by_name(tmp_path: Path) -> None:
    layers = tuple(LayerImportance(scores(i), scores(i)) for i in range(12))
    Importance(layers, "taylor").save(tmp_path / "i.safetensors")
    assert [float(layer.heads[0]) for layer in Importance.load(tmp_path / "i.safetensors").layers] == list(range(12))


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (GOOD, {}, "format is 'none', expected 'ffc.importance/1'"),
        (GOOD, {"format": "ffc.importance/2"}, "format is 'ffc.importance/2'"),
        (GOOD, FORMAT | {"samples": "many"}, "metadata 'samples' is 'many', expected a whole number"),
        ({}, FORMAT, "importance has no layers"),
        ({"layers.0.heads": scores(1)}, FORMAT, "layers.0.ffn is missing"),
        (GOOD | {"layers.2.heads": scores(1), "layers.2.ffn": scores(1)}, FORMAT, "layers.1.heads is missing"),
        (GOOD | {"layers.01.heads": scores(1)}, FORMAT, "unknown tensor 'layers.01.heads'"),
        (GOOD | {"embeddings": scores(1)}, FORMAT, "unknown tensor 'embeddings'"),
        (GOOD | {"layers.0.ffn": scores(1, np.nan)}, FORMAT, "layers.0.ffn holds a score that is not a finite number"),
        (GOOD | {"layers.0.ffn": scores(1, np.inf)}, FORMAT, "layers.0.ffn holds a score that is not a finite number"),
        (GOOD | {"layers.0.heads": np.ones((2, 2), np.float32)}, FORMAT, "layers.0.heads has shape [2, 2]"),
        (GOOD | {"layers.0.heads": np.ones(4, np.float64)}, FORMAT, "layers.0.heads is F64, expected F32"),
    ],
)
def test_broken_files_are_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str], message: str
) -> None:
    path = tmp_path / "i.safetensors"
    save_file(tensors, path, metadata)
    with pytest.raises(InputError) as caught:
        Importance.load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, b'\x08\x00\x00\x00\x00\x00\x00\x00{"a": 1'])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "i.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a safetensors file or damaged"):
        Importance.load(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "i.safetensors"
    save_file(GOOD, path, FORMAT)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="damaged"):
        Importance.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Importance.load(tmp_path / "none.safetensors")


def test_an_unwritable_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        Importance((LayerImportance(scores(1), scores(1)),), "taylor").save(tmp_path / "none" / "i.safetensors")


def test_scores_of_other_weights_are_a_mismatch_where_it_is_known_which_were_scored() -> None:
    blocks = Blocks((Layer(0, None, None),), (), (), (), (), ())
    one = LayerImportance(scores(), scores())
    for model in ("", blocks_hash(blocks)):
        assert Importance((one,), "taylor", model=model).mismatch(blocks) is None
    assert str(Importance((one,), "taylor", model="ab" * 32).mismatch(blocks)).startswith(
        "weights of sha256 abababababab were scored and the model has e3b0c44298fc; score this one"
    )


def test_another_number_of_layers_is_a_mismatch() -> None:
    blocks = Blocks((Layer(0, None, None),), (), (), (), (), ())
    one, two = LayerImportance(scores(), scores()), LayerImportance(scores(1), scores())
    assert Importance((one,), "taylor").mismatch(blocks) is None
    assert Importance((one, one), "taylor").mismatch(blocks) == "the importance has 2 layers and the model has 1"
    assert Importance((two,), "taylor").mismatch(blocks) == "layer 0: the importance has 1 heads and the model has 0"
