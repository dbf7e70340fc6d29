"""The encoders that other tests run on are what they claim to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from tests import encoders

SHAPES = ((1, 5), (3, 17))


def run(path: Path, kind: encoders.Kind, shape: tuple[int, int], padding: int = 0) -> npt.NDArray[np.float32]:
    """Run a model on random ids, the last `padding` tokens of each row masked."""
    opened = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert tuple(i.name for i in opened.get_inputs()) == encoders.INPUTS[kind]
    assert {i.type for i in opened.get_inputs()} == {"tensor(int64)"}
    ids = np.random.default_rng(7).integers(5, encoders.VOCABULARY, shape, dtype=np.int64)
    mask = np.ones_like(ids)
    mask[:, shape[1] - padding :] = 0
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    (output,) = opened.run(None, {name: given[name] for name in encoders.INPUTS[kind]})
    result: npt.NDArray[np.float32] = output
    assert np.isfinite(result).all()
    return result


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_bare_encoder_runs_at_any_shape_up_to_its_longest(kind: encoders.Kind, exported: Callable[..., Path]) -> None:
    path = exported(kind)
    for shape in (*SHAPES, (1, encoders.MAX_LENGTH[kind])):
        assert run(path, kind, shape).shape == (*shape, encoders.HIDDEN)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_classifier_gives_three_logits_that_heed_the_mask(kind: encoders.Kind, exported: Callable[..., Path]) -> None:
    path = exported(kind, head=True)
    for shape in SHAPES:
        assert run(path, kind, shape).shape == (shape[0], encoders.LABELS)
    assert np.abs(run(path, kind, (1, 8)) - run(path, kind, (1, 8), padding=3)).max() > 1e-3


def test_biases_and_norm_weights_are_all_different_unless_zero_is_asked_for(exported: Callable[..., Path]) -> None:
    own = vectors(exported("bert"))
    # in each of two layers query, key, value, output and two of the FFN; and weight and bias of five norms
    assert len({v.tobytes() for v in own}) == len(own) == 22
    merged = vectors(exported("bert", zero_biases=True))
    zeros = [v for v in merged if not v.any()]
    # the exporter keeps one zero bias of each length
    assert sorted(len(v) for v in zeros) == [encoders.HIDDEN, encoders.FFN]


def vectors(path: Path) -> list[npt.NDArray[np.float32]]:
    """Return the float initializers of one dimension that are as long as a layer is wide."""
    arrays = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    return [a for a in arrays if a.ndim == 1 and a.dtype == np.float32 and len(a) in (encoders.HIDDEN, encoders.FFN)]


def test_minilm_is_the_real_one(minilm: Path) -> None:
    opened = ort.InferenceSession(str(minilm), providers=["CPUExecutionProvider"])
    words = encoders.minilm_example().tokenizer()
    sentences = ("A man plays guitar.", "Someone plays a guitar.", "Taxes rose in May.")
    first, same, other = (mean_pooled(opened, words.encode(sentence)) for sentence in sentences)
    assert first @ same > 0.8 > 0.3 > first @ other


def mean_pooled(opened: ort.InferenceSession, encoding: object) -> npt.NDArray[np.float32]:
    """Return the unit embedding of one sentence."""
    names = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    given = {name: np.array([getattr(encoding, field)], np.int64) for name, field in names.items()}
    (hidden,) = opened.run(["last_hidden_state"], given)
    pooled: npt.NDArray[np.float32] = hidden[0].mean(axis=0)
    return pooled / np.linalg.norm(pooled)
