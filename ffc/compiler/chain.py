"""Which passes a request makes run, in order, and how one of them runs on a clone."""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from ffc.compiler import syntax
from ffc.compiler.library import Library
from ffc.compiler.log import Log
from ffc.compiler.passes import Pass, check_values
from ffc.errors import CannotApplyError, FfcError, GateError, InputError, UsageError, nearest
from ffc.graph import files
from ffc.graph.files import ModelLike
from ffc.graph.tidy import tidy

__all__ = [
    "Link", "as_passes", "blame", "chain", "check_expected", "fitting", "open_model", "ready_for", "run", "with_lower",
]  # fmt: skip

Link = tuple[Pass, str | None]
"""A pass to run, and what it was inserted for if it was not asked for."""


def open_model(model: ModelLike) -> ir.Model:
    """Load a model, or clone one in memory; its ``meta`` says where it lies.

    Raises:
        UsageError: If it is nothing that `ffc.graph.files.load` takes.
        InputError: If the file is missing, broken or unsafe.
    """
    loaded, path = files.load(model), files.path_of(model)
    if path is not None:
        loaded.meta["ffc.path"] = path
    return loaded


def as_passes(
    passes: str | Sequence[str | Pass], library: Library, sets: Mapping[str, str] | Sequence[str] = ()
) -> list[Pass]:
    """Return the passes of a pipeline, given as text or as a list of texts and passes, with the options of `sets`.

    Raises:
        UsageError: If the text or `sets` is malformed, or an item is no pass.
    """
    if isinstance(passes, str):
        return syntax.parse(passes, library, sets)
    found: list[Pass] = []
    for item in passes if isinstance(passes, Sequence) else [passes]:
        if isinstance(item, type) and issubclass(item, Pass):
            raise UsageError(f"{item.__name__} is the class of a pass; give one with its options, {item.__name__}(...)")
        if not isinstance(item, str | Pass):
            raise UsageError(f"{item!r} is no pass; give a pipeline as text, or a list of texts and passes")
        if isinstance(item, Pass):
            check_values(item)
        found += syntax.parse(item, library) if isinstance(item, str) else [item]
    return syntax.with_options(found, sets)


def chain(asked: Sequence[Pass], library: Library) -> list[Link]:
    """Return the passes to run: those asked for, each after what it needs, and `opset` before all that need it.

    Raises:
        UsageError: If a pass follows `lower`, or passes need what there is not or each other.
        CannotApplyError: If a pass that must run before numbers are rounded comes after that.
        InputError: If a file that an option names is not there.
    """
    links: list[Link] = []
    early = list(itertools.takewhile(lambda item: item.any_opset, asked))
    for item in early:
        _add(item, None, links, library)
    if all(item.name != "opset" for item in early):
        _add(library["opset"](), "every compile", links, library)
    for item in asked[len(early) :]:
        rounding = next((done.name for done, _ in links if done.rounds), None)
        if item.before_rounding and rounding:
            raise CannotApplyError(f"'{item.name}' comes after '{rounding}' in the pipeline; put it before")
        _add(item, None, links, library)
    if any(item.name == "lower" for item, _ in links[:-1]):
        raise UsageError("'lower' ends every compile; put no pass after it")
    for item in asked:
        _check_files(item)
    return links


def _check_files(item: Pass) -> None:
    for field in dataclasses.fields(item):
        path = getattr(item, field.name)
        if field.metadata.get("file") and path is not None and not Path(path).exists():
            what = f"there is no file {path}, which option '{field.name}' names"
            raise InputError(f"pass '{item.name}': {what}; correct it")


def fitting(links: Sequence[Link], model: ir.Model) -> list[Link]:
    """Return `links` without what was inserted and a model does not want, for the target that ends them or the CPU."""
    target = str(getattr(links[-1][0], "target", "cpu"))
    return [(item, needed_by) for item, needed_by in links if needed_by is None or item.fits(model, target)]


def with_lower(links: Sequence[Link], library: Library, target: str) -> list[Link]:
    """Return `links` with `lower` for a target at their end, unless it is there already.

    Raises:
        UsageError: If there is no such target.
    """
    targets = typing.get_args(syntax.kinds(library["lower"])["target"].type)
    if target not in targets:
        near = "; did you mean 'cuda'?" if target.lower() == "gpu" else nearest(target, targets)  # of letters, cpu is
        raise UsageError(f"unknown target '{target}'{near}")
    if links and links[-1][0].name == "lower":
        return list(links)
    return [*links, (syntax.parse(f"lower{{target={target}}}", library)[0], "every compile")]


def _add(item: Pass, needed_by: str | None, links: list[Link], library: Library, waiting: tuple[str, ...] = ()) -> None:
    """Append a pass to `links`, what it needs before it; `waiting` are the passes that it is needed for."""
    if item.name in waiting:
        raise UsageError(f"passes need each other in a circle: {' → '.join([*waiting, item.name])}")
    for need in item.needs:
        if need not in library:
            raise UsageError(f"pass '{item.name}' needs '{need}', which is no pass{nearest(need, library)}")
        if all(done.name != need for done, _ in links):
            _add(library[need](), item.name, links, library, (*waiting, item.name))
    links.append((item, needed_by))


@contextmanager
def blame(item: Pass) -> Iterator[None]:
    """Name the pass in every error that is raised inside, and turn the accidents of a user's own pass into errors."""
    try:
        yield
    except FfcError as error:
        message = str(error)
        error.args = (message if message.startswith(f"pass '{item.name}'") else f"pass '{item.name}': {message}",)
        raise
    except (Exception, SystemExit) as error:
        if type(item).__module__.startswith("ffc."):  # a pass of the library: this is ffc's own fault
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CannotApplyError(f"pass '{item.name}' failed with {reason}; the fault is in the pass") from error


def run(item: Pass, model: ir.Model, log: Log) -> ir.Model:
    """Run a pass on a clone of `model` and return the clone, tidied and checked."""
    after = files.clone(model)
    known = {*after.graph}
    item.run(after, log)
    _sign(after, known, item.name)
    if log.count:
        tidy(after)
        _check_interface(model, after)
    return after


def ready_for(name: str, model: ir.Model, library: Library) -> ir.Model:
    """Return a model as the pass `name` is given it: what that needs has run, unproved.

    Raises:
        CannotApplyError: If a pass that it needs cannot be applied.
    """
    *earlier, _ = fitting(chain([library[name]()], library), model)
    for item, _ in earlier:
        with blame(item):
            model = run(item, model, Log())
    return model


def _sign(model: ir.Model, known: set[ir.Node], name: str) -> None:
    """Note on each new node the pass and rule that made it, after those that made what it stands for."""
    for node in model.graph:
        rule = node.metadata_props.pop("ffc.rule", None)
        if node not in known:
            makers = [each for each in node.metadata_props.get("ffc.by", "").split(", ") if each]
            passes = [each.partition("/")[0] for each in makers]
            if name in passes and "lower" in passes:  # an earlier compile wrote it; reading it back makes nothing new
                continue
            others = [each for each, made in zip(makers, passes, strict=True) if made != name]
            own = f"{name}/{rule}" if rule and rule != name else name
            node.metadata_props["ffc.by"] = ", ".join([*others, own])


def _check_interface(before: ir.Model, after: ir.Model) -> None:
    """Refuse a change of what users of the model rely on: names, order, types, and shapes of inputs."""

    def interface(model: ir.Model) -> list[str]:
        inputs = [f"input {value.name} {value.dtype} {value.shape}" for value in model.graph.inputs]
        return inputs + [f"output {value.name} {value.dtype}" for value in model.graph.outputs]

    for was, now in itertools.zip_longest(interface(before), interface(after), fillvalue="nothing"):
        if was != now:
            raise GateError(f"it changes what the model takes and gives: {was} became {now}; nothing was written")


def check_expected(item: Pass, log: Log) -> None:
    """Refuse where a pass made another number of changes than its option `expect` says.

    Raises:
        CannotApplyError: If so; it names the nearest miss.
    """
    if item.expect is None or item.expect == log.count:
        return
    miss = log.nearest()
    hint = f"; nearest: {miss.where}: {miss.why}" if miss else ""
    raise CannotApplyError(f"made {log.count} changes where expect={item.expect}{hint}")
