"""A compiled folder as sentence-transformers runs it: the module that the folder's `modules.json` names.

With ffc installed, ``SentenceTransformer("out/", trust_remote_code=True)`` imports this class by its name, which is
what it wants to be trusted with; no code of the folder is run. The class derives from none of sentence-transformers'
own, so that ffc does not need it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers import AutoTokenizer

from ffc.train.models.features import SENTENCE, TOKENS

__all__ = ["SentenceEncoder"]

_MODEL = "model.onnx"
_NOT_OURS = ("modules.json", "README.md")
"""What sentence-transformers writes itself when it saves a model."""


class SentenceEncoder(nn.Module):
    """An ONNX model in onnxruntime, on the CPU, with its tokenizer.

    Attributes:
        folder: The compiled folder.
        tokenizer: Its tokenizer, of transformers.
    """

    save_in_root = True

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        self._session = _opened(self.folder)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        *,
        subfolder: str = "",
        revision: str | None = None,
        cache_folder: str | None = None,
        token: Any = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> SentenceEncoder:
        """Load a folder, or one that lies on the hub; options for models of torch say nothing here."""
        place = Path(model_name_or_path)
        if not place.is_dir():
            known = {"cache_dir": cache_folder, "token": token, "local_files_only": local_files_only}
            place = Path(snapshot_download(model_name_or_path, revision=revision, **known))
        return cls(place / subfolder)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **options: Any) -> dict[str, Tensor]:
        """Return texts, or pairs of them, as tokens, int64 [B, S]; the prompt comes before each text."""
        rows = [[each] if isinstance(each, str) else list(each) for each in inputs]
        first, *second = zip(*rows, strict=True)
        texts = [f"{prompt or ''}{text}" for text in first]
        pairs = list(second[0]) if second else None
        return dict(self.tokenizer(texts, pairs, padding=True, truncation=True, return_tensors="pt"))

    def tokenize(self, texts: Sequence[Any], **options: Any) -> dict[str, Tensor]:
        """Return what `preprocess` does, as versions before 5.4 call it."""
        return self.preprocess(texts, **options)

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Add `sentence_embedding` [B, width] and `token_embeddings` [B, S, width], float32, to tokens."""
        ids = features["input_ids"]
        given = {each.name: features.get(each.name, torch.zeros_like(ids)) for each in self._session.get_inputs()}
        names = [SENTENCE, TOKENS]
        found = self._session.run(names, {name: value.cpu().numpy() for name, value in given.items()})
        return features | {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    @property
    def max_seq_length(self) -> int:
        """Tokens that a text is cut to."""
        return int(self.tokenizer.model_max_length)

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.tokenizer.model_max_length = value

    def get_embedding_dimension(self) -> int:
        """Return the width of the vector of a sentence."""
        return int(next(each.shape[-1] for each in self._session.get_outputs() if each.name == SENTENCE))

    def get_sentence_embedding_dimension(self) -> int:
        """Return what `get_embedding_dimension` does, as versions before 5.4 call it."""
        return self.get_embedding_dimension()

    def save(self, output_path: str, *arguments: Any, **options: Any) -> None:
        """Copy the folder to another."""
        for file in self.folder.iterdir():
            if file.is_file() and file.name not in _NOT_OURS:
                shutil.copy(file, output_path)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session out, which no other process can take over."""
        return {name: value for name, value in self.__dict__.items() if name != "_session"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._session = _opened(self.folder)


def _opened(folder: Path) -> Any:
    return ort.InferenceSession(str(folder / _MODEL), providers=["CPUExecutionProvider"])
