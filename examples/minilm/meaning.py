"""Measure what a smaller model keeps of the meaning of sentences and how fast it runs, with stock onnxruntime alone."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from export import OUTPUT, tokenizer
from rich.console import Console
from rich.table import Table
from tokenizers import Encoding, Tokenizer

SENTENCES = Path(__file__).with_name("sentences.txt")
NEIGHBOURS = 5

Floats = npt.NDArray[np.float32]
Feeds = dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Meaning:
    """How near the embeddings of one model are to those of a reference.

    Attributes:
        cosine_mean: Mean cosine between the two embeddings of a sentence.
        cosine_min: The smallest of them.
        neighbours_kept: Share in 0..1 of each sentence's nearest neighbours under the reference that are also among
            its nearest under the other model.
    """

    cosine_mean: float
    cosine_min: float
    neighbours_kept: float


def session(path: Path, threads: int = 1) -> ort.InferenceSession:
    """Return a CPU session on the model at `path` that uses `threads` threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(encodings: Sequence[Encoding]) -> Feeds:
    """Return the int64 inputs `[batch, length]` for encodings that were padded together."""
    return {
        "input_ids": np.array([e.ids for e in encodings], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
        "token_type_ids": np.array([e.type_ids for e in encodings], np.int64),
    }


def embed(session: ort.InferenceSession, tokenizer: Tokenizer, sentences: Sequence[str], batch: int = 16) -> Floats:
    """Embed sentences as all-MiniLM-L6-v2 is meant to: mean over the real tokens, then unit length.

    Args:
        session: A model with an output `last_hidden_state` `[batch, length, width]`.
        tokenizer: Pads each batch to its longest sentence.
        sentences: The n sentences to embed.
        batch: How many sentences go through the model at once.

    Returns:
        The embeddings, float32 `[n, width]`, each of Euclidean length 1.
    """
    parts: list[Floats] = []
    for start in range(0, len(sentences), batch):
        given = feeds(tokenizer.encode_batch(list(sentences[start : start + batch])))
        hidden: Floats = session.run([OUTPUT], accepted(session, given))[0]
        real = given["attention_mask"][:, :, None].astype(np.float32)
        parts.append((hidden * real).sum(axis=1) / real.sum(axis=1))
    pooled: Floats = np.concatenate(parts)
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    return pooled


def accepted(session: ort.InferenceSession, given: Feeds) -> Feeds:
    """Return those of the inputs that the model still has; a compiler may drop one that is constant."""
    names = {i.name for i in session.get_inputs()}
    return {name: value for name, value in given.items() if name in names}


def compare(reference: Floats, other: Floats, neighbours: int = NEIGHBOURS) -> Meaning:
    """Compare two models' embeddings of the same sentences.

    Args:
        reference: Unit embeddings `[n, width]` of the model that is held to be right.
        other: Unit embeddings `[n, width]` of the model in question.
        neighbours: How many nearest sentences count as neighbours, fewer than n.

    Returns:
        Cosines and the share of neighbours kept.

    Raises:
        ValueError: The shapes differ, or there are too few sentences for that many neighbours.
    """
    if reference.shape != other.shape:
        raise ValueError(f"embeddings differ in shape: {reference.shape} and {other.shape}")
    if not 0 < neighbours < len(reference):
        raise ValueError(f"{neighbours} neighbours asked for among {len(reference)} sentences")
    cosine = (reference * other).sum(axis=1)
    pairs = zip(nearest(reference, neighbours), nearest(other, neighbours), strict=True)
    kept = [len(np.intersect1d(was, now)) / neighbours for was, now in pairs]
    return Meaning(float(cosine.mean()), float(cosine.min()), float(np.mean(kept)))


def nearest(embeddings: Floats, neighbours: int) -> npt.NDArray[np.intp]:
    """Return for each row the indices `[n, neighbours]` of the nearest other rows by cosine, nearest first."""
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :neighbours]


def latency(sessions: Mapping[str, ort.InferenceSession], feeds: Sequence[Feeds], rounds: int) -> dict[str, float]:
    """Time models against each other, sentence by sentence.

    In every round each model runs all feeds, and the order turns from round to round, so that a slow spell of the
    machine hits all alike.

    Args:
        sessions: The models by name, each opened with the threads it may use.
        feeds: The inputs of one sentence each, at its own length.
        rounds: How often each model runs all feeds, after one round that is not counted.

    Returns:
        By name, the median over rounds of the milliseconds per sentence.
    """
    inputs = {name: [accepted(s, given) for given in feeds] for name, s in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    names = list(sessions)
    for turn in range(rounds + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            for given in inputs[name]:
                sessions[name].run(None, given)
            times[name].append((time.perf_counter() - start) * 1e3 / len(feeds))
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def main() -> None:
    """Print size, speed and meaning of several models against the first of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help="ONNX files; the first is the reference")
    parser.add_argument("--sentences", type=Path, default=SENTENCES, help="a text file, one sentence a line")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds over all sentences (default 5)")
    given = parser.parse_args()
    sentences = given.sentences.read_text(encoding="utf-8").splitlines()
    words = tokenizer()
    sessions = {str(path): session(path) for path in given.models}
    singles = [feeds([words.encode(s)]) for s in sentences]
    taken = latency(sessions, singles, given.rounds)
    embedded = {name: embed(s, words, sentences) for name, s in sessions.items()}
    Console().print(table(taken, embedded, f"{len(sentences)} sentences, batch 1, one thread"))


def table(taken: Mapping[str, float], embedded: Mapping[str, Floats], title: str) -> Table:
    """Lay the measurements out, one model a row; speed-up and meaning are against the first."""
    result = Table(title=title)
    result.add_column("model", overflow="fold")
    for column in ("MB", "ms", "speed-up", "cosine", "lowest", "neighbours"):
        result.add_column(column, justify="right")
    first = next(iter(taken))
    for name, ms in taken.items():
        found = compare(embedded[first], embedded[name])
        result.add_row(
            Path(name).name,
            f"{Path(name).stat().st_size / 1e6:.1f}",
            f"{ms:.2f}",
            f"{taken[first] / ms:.2f}x",
            f"{found.cosine_mean:.5f}",
            f"{found.cosine_min:.5f}",
            f"{found.neighbours_kept:.1%}",
        )
    return result


if __name__ == "__main__":
    main()
