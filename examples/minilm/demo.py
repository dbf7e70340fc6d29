"""Compile the real MiniLM, and show what every pass did, what the result costs, and what became of the meaning."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export import export, tokenizer
from meaning import SENTENCES, Feeds, Meaning, compare, embed, feeds, latency, session
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ffc.compiler.reports.report import Report, Step, from_json

SOURCE, PLAN, REPORT = "minilm.onnx", "plan.json", "report.json"
EXPORT, PRUNED, INT8, LARGER = "export, fp32", "prune,fuse,int8", "fuse,int8", "fuse,int8{embeddings=false}"
PEER = "quantize_dynamic"
PASSES = {PRUNED: f"prune{{plan={PLAN}}},fuse,int8", INT8: INT8, LARGER: LARGER}
FILES = {
    EXPORT: SOURCE,
    PRUNED: "minilm.int8.onnx",
    INT8: "minilm.unpruned.onnx",
    LARGER: "minilm.larger.onnx",
    PEER: "minilm.peer.onnx",
}
KEPT = "0.75"
LEAST_COSINE = 0.994
LONG = 128
ROUNDS = 7


@dataclass(frozen=True)
class Row:
    """What was measured of one model.

    Attributes:
        size: Bytes of its file.
        short: Median milliseconds a sentence, each at its own length.
        long: Median milliseconds for a text of `LONG` tokens.
        meaning: Its embeddings against those of the export.
    """

    size: int
    short: float
    long: float
    meaning: Meaning


def main() -> int:
    """Do the whole job and return 0 if int8 kept what it must, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build"), help="where files go (default: build)")
    folder: Path = parser.parse_args().folder
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is in the package
    started, console = time.perf_counter(), Console(highlight=False)
    make(folder, console)
    console.print(f"\n[bold]What each pass did[/], in {PASSES[PRUNED]}\n")
    report = from_json((folder / REPORT).read_text(encoding="utf-8"))
    console.print(passes(report))
    console.print(
        "Differences are the largest on the probes, relative to the scale of the output. "
        "Every one is within the contract of its pass, or nothing would have been written."
    )
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    rows = measure(folder, sentences)
    console.print(f"\n[bold]What it costs and what it keeps[/], on {len(sentences)} sentences\n")
    console.print(results(rows))
    console.print(explanation(rows))
    console.print()
    good = judge(rows, console)
    console.print(f"\n{time.perf_counter() - started:.0f} s; all files are in {folder}/", style="dim")
    return 0 if good else 1


def make(folder: Path, console: Console) -> None:
    """Export the model if it is not there yet, plan, and compile it in each way."""
    folder.mkdir(parents=True, exist_ok=True)
    console.print("[bold]MiniLM[/] (all-MiniLM-L6-v2, 6 layers, width 384) through [bold]ffc[/]\n")
    if (folder / SOURCE).is_file():
        console.print(f"{SOURCE} is there from an earlier run")
    else:
        console.print(f"exporting {SOURCE} with torch, which takes half a minute ...")
        export(folder / SOURCE)
    ffc(["plan", SOURCE, "--by", "norm", "--heads", KEPT, "--ffn", KEPT, "-o", PLAN], folder, console)
    for name, text in PASSES.items():
        report = ["--report", REPORT] if name == PRUNED else []
        ffc(["compile", SOURCE, "--passes", text, "-o", FILES[name], *report], folder, console)
    console.print(f"and onnxruntime's own quantize_dynamic, per channel: {FILES[PEER]}")
    quantize(folder / SOURCE, folder / FILES[PEER])


def ffc(arguments: Sequence[str], folder: Path, console: Console) -> None:
    """Show a command and run it in `folder`, its output kept back.

    Raises:
        SystemExit: It failed; its own message has been printed.
    """
    console.print(f"$ ffc {shlex.join(arguments)}", markup=False, soft_wrap=True, style="cyan")
    command = [str(Path(sys.executable).with_name("ffc")), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise SystemExit(done.returncode)


def quantize(source: Path, out: Path) -> None:
    """Quantize as onnxruntime's documentation says: dynamic, int8 weights, per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it warns of a missing pre-processing on every model
    quantize_dynamic(source, out, per_channel=True, weight_type=QuantType.QInt8)
    logging.disable(logging.NOTSET)


def passes(report: Report) -> Table:
    """Lay out the model as it came and after every pass."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("after", overflow="fold", min_width=21)
    for column in ("nodes", "parameters", "MB", "MACs", "time", "largest\ndifference"):
        table.add_column(column, justify="right")
    for name, cost, step in [("the export", report.before, None), *((s.text, s.cost, s) for s in report.steps)]:
        table.add_row(
            name,
            str(cost.nodes),
            f"{cost.parameters / 1e6:.1f} M",
            f"{cost.bytes / 1e6:.1f}",
            f"{cost.macs / 1e9:.2f} G",
            f"{step.seconds:.1f} s" if step else "",
            difference(step),
        )
    table.caption = f"MACs at batch {report.batch}, {report.length} tokens"
    table.caption_justify = "left"
    return table


def difference(step: Step | None) -> str:
    """Return the largest difference that a step was proved with, or what there is to say instead."""
    if step is None:
        return ""
    return f"{step.verdict.difference:.1e}" if step.verdict else "no change"


def measure(folder: Path, sentences: Sequence[str]) -> dict[str, Row]:
    """Measure all models, taking turns, on one thread."""
    words = tokenizer()
    sessions = {name: session(folder / file) for name, file in FILES.items()}
    short = latency(sessions, [feeds([words.encode(s)]) for s in sentences[::4]], ROUNDS)
    long = latency(sessions, [long_text(sentences)] * 5, ROUNDS)
    embedded = {name: embed(opened, words, sentences) for name, opened in sessions.items()}
    return {
        name: Row(
            (folder / file).stat().st_size, short[name], long[name], compare(embedded[EXPORT], embedded[name])
        )
        for name, file in FILES.items()
    }  # fmt: skip


def long_text(sentences: Sequence[str]) -> Feeds:
    """Return as many of the sentences, one after another, as fill `LONG` tokens."""
    words = tokenizer()
    words.enable_truncation(max_length=LONG)
    return feeds([words.encode(" ".join(sentences))])


def results(rows: Mapping[str, Row]) -> Table:
    """Lay out size, speed and meaning, a model a row; speed-ups are against the export."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("model", overflow="fold")
    for column in ("MB", "ms a\nsentence", f"ms at\n{LONG} tokens", "mean\ncosine", "neigh-\nbours"):
        table.add_column(column, justify="right")
    base = rows[EXPORT]
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row.size / 1e6:.1f}",
            f"{row.short:.2f} ({base.short / row.short:.1f}×)",
            f"{row.long:.1f} ({base.long / row.long:.1f}×)",
            f"{row.meaning.cosine_mean:.4f}",
            f"{row.meaning.neighbours_kept:.1%}",
            style="bold" if name == INT8 else None,
        )
    return table


def explanation(rows: Mapping[str, Row]) -> str:
    """Say in words what the columns are and what pruning costs."""
    lost = 1 - rows[PRUNED].meaning.neighbours_kept
    return (
        "onnxruntime on CPU, batch 1, one thread, medians of interleaved rounds. Cosine of the sentence embeddings "
        "with the export's, and the share of each sentence's five nearest that still are.\n\n"
        f"Pruning without retraining costs meaning: with {float(KEPT):.0%} of heads and units kept, chosen by norm, "
        f"{lost:.0%} of the neighbours are lost. It shows what the passes do and what they save; a pruned model must "
        "be trained again before it is of use. fuse,int8 needs no training."
    )


def judge(rows: Mapping[str, Row], console: Console) -> bool:
    """Print whether int8 without pruning kept what it must, and return it."""
    own, peer = rows[INT8].meaning.cosine_mean, rows[PEER].meaning.cosine_mean
    checks = {
        f"{INT8} keeps a mean cosine of {own:.5f}, no less than {LEAST_COSINE}": own >= LEAST_COSINE,
        f"{INT8} keeps no less than quantize_dynamic with its {peer:.5f}": own >= peer,
    }
    for text, holds in checks.items():
        console.print(f"{'[green]PASS[/]' if holds else '[red]FAIL[/]'}  {text}")
    return all(checks.values())


if __name__ == "__main__":
    sys.exit(main())
