"""A tiny random BERT with a tokenizer of a few words, and rows that it can learn, as files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffc.settings.data import Data

if TYPE_CHECKING:
    from ffc.train.tasks import Task

WORDS = "good fine great bad poor awful the a film book day was and very it this".split()
GOOD, BAD, OTHER = WORDS[:3], WORDS[3:6], WORDS[6:]


def save_model(folder: Path, *, layers: int = 3, words: list[str] = WORDS, longest: int = 40) -> Path:
    """Save an encoder without a head and without dropout, so that training in one process and in two are the same.

    Args:
        folder: Where it goes.
        layers: How many layers.
        words: What the tokenizer knows besides the special tokens.
        longest: Tokens that a row may have.
    """
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: index for index, word in enumerate([*special, *words])}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 48}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=longest, **sizes, **dropout)
    BertModel(config).save_pretrained(folder)
    return folder


def save_rows(path: Path, rows: int, seed: int) -> Path:
    """Write rows of ``text`` and ``label``: texts are positive if they have a good word, and negative with a bad one."""
    draw = random.Random(seed)
    lines = ["text\tlabel"]
    for index in range(rows):
        texts = [*draw.choices(OTHER, k=draw.randint(2, 9)), draw.choice(BAD if index % 2 else GOOD)]
        draw.shuffle(texts)
        lines.append(f"{' '.join(texts)}\t{'negative' if index % 2 else 'positive'}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def load(name: str, folder: Path | None = None, *, seed: int = 0, **more: Any) -> Task:
    """Load a task from its settings in one go."""
    from ffc.train import tasks

    return tasks.load(Data(name, folder, **more), seed=seed)
