"""Each mode of pooling is what its name says, on rows padded on either side and with holes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ffc.train.models.pooling import MODES, OLD_KEYS, pool

MASKS = {
    "full": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
    "right": [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]],
    "left": [[0, 1, 1, 1, 1], [0, 0, 0, 1, 1]],
    "holed": [[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]],
}

# Of the real tokens of one row [n, W], whose places from the first real one are counted from 1.
DEFINITIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cls": lambda real, places: real[0],
    "max": lambda real, places: real.max(axis=0),
    "mean": lambda real, places: real.mean(axis=0),
    "mean_sqrt_len_tokens": lambda real, places: real.sum(axis=0) / len(real) ** 0.5,
    "weightedmean": lambda real, places: (real * places[:, None]).sum(axis=0) / places.sum(),
    "lasttoken": lambda real, places: real[-1],
}


def defined(mode: str, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    rows = []
    for row, kept in zip(tokens, mask, strict=True):
        places = np.flatnonzero(kept)
        rows.append(DEFINITIONS[mode](row[places], places - places[0] + 1.0))
    return np.stack(rows)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_what_it_is_called(mode: str, kind: str) -> None:
    tokens = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)) - 4  # so that no largest one is a 0
    mask = torch.tensor(MASKS[kind])
    assert pool(tokens, mask, [mode]).numpy() == pytest.approx(defined(mode, tokens.numpy(), mask.numpy()), abs=1e-6)


def test_several_modes_are_joined_in_the_order_given() -> None:
    tokens, mask = torch.randn(2, 5, 3), torch.tensor(MASKS["right"])
    found = pool(tokens, mask, ["mean", "cls"])
    assert found.shape == (2, 6)
    assert torch.equal(found[:, :3], pool(tokens, mask, ["mean"])) and torch.equal(found[:, 3:], tokens[:, 0])


@pytest.mark.parametrize("mode", MODES)
def test_a_row_without_tokens_is_finite(mode: str) -> None:
    assert torch.isfinite(pool(torch.randn(1, 4, 3), torch.zeros(1, 4, dtype=torch.int64), [mode])).all()


def test_every_mode_had_a_key_of_its_own_once() -> None:
    assert sorted(OLD_KEYS.values()) == sorted(MODES)
