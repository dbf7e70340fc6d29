"""Damages valid models by the thousand, compiles each in a process of its own, and records how every one of them ended.

    python -m tests.safety.fuzz --count 10000 --record tests/safety/results/mutations.json

A compile must end with an exit code that ffc documents, other than 70, and on failure with one line on stderr and no file
written. A case is told by seed and number: `--only N` runs one again and shows what it said.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import platform
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.safety.mutate import mutated

PASSES = "fuse,int8"
SECONDS = 60
MEMORY = 4 << 30
_ENDINGS = {0: "compiled", 1: "refused by a gate", 2: "refused as usage", 3: "refused as input", 4: "refused by a pass"}


@dataclass(frozen=True)
class Seed:
    """A valid model that cases are made of: the bytes of its file, and those and the name of its data file if it has one."""

    name: str
    model: bytes
    data: bytes | None = None
    data_name: str = ""


@dataclass(frozen=True)
class Outcome:
    """How one case ended.

    Attributes:
        number: The number of the case.
        ending: In a word or two; one of those in `_ENDINGS` where all is well.
        message: What stood on stderr last.
        fault: What is wrong with that, or "".
        seconds: Wall time.
    """

    number: int
    ending: str
    message: str
    fault: str
    seconds: float


def seeds(folder: Path, export: bool) -> list[Seed]:
    """Make the models to damage: as exported, with external data, with ffc's functions, and compiled.

    Args:
        folder: Where to write them.
        export: Whether to add one that torch exports on the spot.
    """
    from ffc.graph import files
    from tests import graphs

    made = {
        "encoder": graphs.encoder(),
        "functions": graphs.run_passes(graphs.encoder(), "opset", "clean", "fuse"),
        "compiled": graphs.run_passes(graphs.encoder(), "opset", "clean", "fuse", "int8", "lower"),
    }
    found = []
    for name, model in made.items():
        path = folder / f"{name}.onnx"
        files.save(model, path)
        found.append(Seed(name, path.read_bytes()))
    files.save(made["encoder"], folder / "external.onnx", external=True)
    proto = (folder / "external.onnx").read_bytes()
    (data,) = (path for path in folder.iterdir() if path.suffix == ".data")
    found.append(Seed("external", proto, data.read_bytes(), data.name))
    return [*found, *(_exported(folder) if export else ())]


def _exported(folder: Path) -> Iterator[Seed]:
    """Yield a real export with a head, where torch is installed; made in another process, so that none here carries torch."""
    make = "import sys, pathlib; from tests import encoders; encoders.Export('bert', layers=1, head=True).write(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", make, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        (path,) = folder.glob("bert-*.onnx")
        yield Seed("bert", path.read_bytes())
    elif "No module named" not in done.stderr:
        raise RuntimeError(done.stderr)


def damaged(number: int, seed: int, models: list[Seed]) -> Seed:
    """Return the model of case `number`."""
    dice = random.Random(f"{seed}.{number}")
    chosen = dice.choices(models, [1 if each.name == "bert" else 7 for each in models])[0]  # it takes ten times as long
    others = [each.model for each in models if each is not chosen]
    if chosen.data is not None and dice.random() < 0.1:
        return replace(chosen, data=mutated(chosen.data, others, dice))
    return replace(chosen, model=mutated(chosen.model, others, dice))


def run(number: int, case: Seed, keep: Path | None = None) -> Outcome:
    """Compile one case in a process forked from this one."""
    folder = Path(tempfile.mkdtemp(prefix="ffc-fuzz-"))
    try:
        (folder / "m.onnx").write_bytes(case.model)
        if case.data is not None:
            (folder / case.data_name).write_bytes(case.data)
        before = _snapshot(folder)
        started = time.monotonic()
        status = _in_child(folder)
        seconds = time.monotonic() - started
        said = (folder / ".stderr").read_text(encoding="utf-8", errors="backslashreplace")
        (folder / ".stderr").unlink()
        outcome = _judged(number, status, said, before, _snapshot(folder), seconds)
        if keep is not None and outcome.fault:
            shutil.copytree(folder, keep / str(number), dirs_exist_ok=True)
            (keep / str(number) / "stderr.txt").write_text(said, encoding="utf-8")
        return outcome
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _in_child(folder: Path) -> int | None:
    """Return the wait status of a child that compiled the model in `folder`, None where it had to be killed."""
    child = os.fork()
    if not child:
        _compile(folder)
    descriptor = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([descriptor], [], [], SECONDS)
        if not ready:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        return status if ready else None
    finally:
        os.close(descriptor)


def _compile(folder: Path) -> None:
    """Compile, in the child, as the command line does; never return."""
    code = 70
    try:
        with (folder / ".stderr").open("wb", buffering=0) as stream:
            os.dup2(stream.fileno(), 2)
            os.dup2(stream.fileno(), 1)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ["FFC_TRACEBACK"] = "1"
        from ffc import cli

        code = cli.main(["compile", str(folder / "m.onnx"), "--passes", PASSES, "-o", str(folder / "o.onnx")])
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _snapshot(folder: Path) -> Mapping[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def _judged(
    number: int, status: int | None, said: str, before: Mapping[str, str], after: Mapping[str, str], seconds: float
) -> Outcome:
    lines = [line for line in said.splitlines() if line.strip()]
    message = lines[-1] if lines else ""
    if status is None:
        return Outcome(number, "hang", message, f"ran longer than {SECONDS} s", seconds)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Outcome(number, "crash", message, f"ended by {name}", seconds)
    code = os.waitstatus_to_exitcode(status)
    ending = _ENDINGS.get(code, f"exit code {code}")
    fault = ""
    if code not in _ENDINGS:
        fault = f"exit code {code}"
    elif "Traceback" in said:
        fault = "a traceback"
    elif code and not message.startswith("ffc: error: "):
        fault = "the last line is no error of ffc"
    elif any(not (each.isprintable() or each == "\n") for each in said):
        fault = "control characters on stderr"
    elif {name: digest for name, digest in after.items() if code or not name.startswith("o.onnx")} != before:
        fault = "files were written or changed"
    return Outcome(number, ending, message, fault, seconds)


def main() -> int:
    """Run the cases asked for, and write what became of them."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="ffc-seeds-") as folder:
        models = seeds(Path(folder), not arguments.no_export)
    from tests.safety import warm

    assert warm.LIBRARY and models
    numbers = range(arguments.start, arguments.start + arguments.count) if arguments.only is None else [arguments.only]
    started = time.monotonic()
    endings: Counter[str] = Counter()
    faults: list[Outcome] = []
    slowest = 0.0
    # Workers are forked before any thread is; each case is forked from a worker, imports done.
    with multiprocessing.get_context("fork").Pool(arguments.jobs, _settle) as pool:
        work = [(n, arguments.seed, models, arguments.keep) for n in numbers]
        for done, outcome in enumerate(pool.imap_unordered(_run_case, work), 1):
            endings[outcome.ending] += 1
            slowest = max(slowest, outcome.seconds)
            if outcome.fault:
                faults.append(outcome)
            if outcome.fault or arguments.only is not None:
                print(f"case {outcome.number}: {outcome.ending} {outcome.fault}: {outcome.message[:400]}", flush=True)
            if done % 500 == 0:
                print(f"{done} in {time.monotonic() - started:.0f} s: {dict(endings)}", flush=True)
    seconds = time.monotonic() - started
    print(f"{sum(endings.values())} in {seconds:.0f} s: {dict(endings)}, {len(faults)} faults, slowest {slowest:.1f} s")
    if arguments.record:
        _record(arguments, models, endings, faults, seconds, slowest)
    return 1 if faults else 0


def _settle() -> None:
    """Keep a worker and its children on one core: sessions take as many threads as there are cores, and they spin."""
    cores = sorted(os.sched_getaffinity(0))
    (place, *_) = multiprocessing.current_process()._identity  # type: ignore[attr-defined]
    os.sched_setaffinity(0, {cores[place % len(cores)]})


def _run_case(work: tuple[int, int, list[Seed], Path | None]) -> Outcome:
    number, seed, models, keep = work
    return run(number, damaged(number, seed, models), keep)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="number of cases")
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0, help="seed of all cases")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time")
    parser.add_argument("--no-export", action="store_true", help="leave out the model that torch exports")
    parser.add_argument("--only", type=int, help="one case, and what it said")
    parser.add_argument("--keep", type=Path, help="folder for the files of cases that went wrong")
    parser.add_argument("--record", type=Path, help="JSON file to write; one there is continued, from --start")
    return parser.parse_args()


def _record(
    arguments: argparse.Namespace,
    models: list[Seed],
    endings: Counter[str],
    faults: list[Outcome],
    seconds: float,
    slowest: float,
) -> None:
    import onnx
    import onnxruntime

    run = {
        "passes": PASSES,
        "seed": arguments.seed,
        "start": arguments.start,
        "cases": sum(endings.values()),
        "models": {each.name: len(each.model) for each in models},
        "endings": dict(endings.most_common()),
        "faults": [{"case": each.number, "ending": each.ending, "what": each.fault} for each in faults],
        "slowest_seconds": round(slowest, 1),
        "seconds": round(seconds),
        "limits": {"seconds": SECONDS, "address_space_bytes": MEMORY},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {arguments.jobs} at a time",
        "versions": {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    }
    found: dict[str, list[object]] = {"runs": [], "ended_well_after_mending": []}
    if arguments.start and arguments.record.exists():
        found = json.loads(arguments.record.read_text(encoding="utf-8"))
    found["runs"].append(run)
    arguments.record.parent.mkdir(parents=True, exist_ok=True)
    arguments.record.write_text(json.dumps({**found, "format": "ffc.mutations/2"}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
