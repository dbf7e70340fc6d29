"""The two plots of a report, as PNG: what pruning saves and costs, and accuracy against queries per second."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ffc.errors import UsageError
from ffc.settings import libraries
from ffc.study.report.summary import COMPILED, EAGER, FP32, PADDED, Run, System
from ffc.study.report.table import kept

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

__all__ = ["sizes", "throughput"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Told apart by people who are colour-blind (Okabe and Ito, Color Universal Design, 2008)."""

_MARKS = "os^DvP"
_INCHES = (7.2, 4.6)
_DPI = 150
_QUIET = "#59636e"

_WAYS = {
    PADDED: "PyTorch, padded",
    EAGER: "PyTorch, dynamic length",
    FP32: "onnxruntime, fp32",
    COMPILED: "compiled",
}


@dataclass(frozen=True)
class _Point:
    """A point with its label; one that is chosen stands out."""

    x: float
    y: float
    label: str
    chosen: bool


def sizes(run: Run) -> bytes:
    """Plot the time a query against accuracy for each student, whole and pruned, compiled.

    Returns:
        The picture, PNG.

    Raises:
        MissingError: If matplotlib is not installed.
        UsageError: If nothing was measured.
    """
    figure, axes = _empty(run, "Inference time and accuracy of pruned sizes, compiled", "milliseconds a query")
    shown: list[_Point] = []
    for index, student in enumerate(dict.fromkeys(system.student for system in run.systems)):
        line = sorted(_of_student(run, student), key=lambda point: point.x)
        shown += line
        _draw(axes, line, index, run.system(student).name, line="-")
    _reference(axes, run)
    axes.set_xlim(left=0)
    return _finished(figure, axes, shown)


def _of_student(run: Run, student: str) -> Iterator[_Point]:
    for system in run.systems:
        if system.student == student and (seconds := _seconds(run, system, COMPILED)):
            yield _Point(1e3 * seconds, system.compiled.accuracy, _size(run, system), system.name == run.chosen)


def _size(run: Run, system: System) -> str:
    if system.kind != "pruned":
        return system.name
    heads, units = kept(run, system)
    return f"{heads:.0%} heads, {units:.0%} units"


def throughput(run: Run) -> bytes:
    """Plot accuracy against the queries a second of one core, for every system in every way that it was served.

    What is pruned is shown compiled alone, or there would be too much to read.

    Returns:
        The picture, PNG.

    Raises:
        MissingError: If matplotlib is not installed.
        UsageError: If nothing was measured.
    """
    figure, axes = _empty(run, "Accuracy and queries a second, one core", "queries a second (logarithmic)")
    from matplotlib import ticker

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    shown: list[_Point] = []
    for index, (way, title) in enumerate(_WAYS.items()):
        points = []
        for system in run.systems:
            seconds = _seconds(run, system, way)
            if seconds and (way == COMPILED or system.kind != "pruned"):
                chosen = way == COMPILED and system.name == run.chosen
                points.append(_Point(1 / seconds, system.form(way).accuracy, system.name, chosen))
        _draw(axes, points, index, title, line="")
        shown += points
    _reference(axes, run)
    return _finished(figure, axes, shown)


def _seconds(run: Run, system: System, way: str) -> float | None:
    """Return the seconds a query, or None if that was not measured."""
    taken = run.measured(system, way)
    return taken.seconds / run.measurements.queries if taken and run.measurements else None


def _empty(run: Run, title: str, across: str) -> tuple[Figure, Axes]:
    """Return a figure that belongs to no window, with one plot."""
    if run.measurements is None:
        raise UsageError(f"the run of {run.study} measured nothing, so there is nothing to plot; run it to the end")
    libraries.check(libraries.PLOTS)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(across)
    axes.set_ylabel(f"{run.task.metric} on {run.task.name}, percent", parse_math=False)
    axes.grid(color="#d0d7de", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw(axes: Axes, points: Sequence[_Point], index: int, label: str, line: str) -> None:
    """Draw a series, the chosen point with a ring."""
    if not points:
        return
    style: dict[str, Any] = {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKS[index % len(_MARKS)]}
    xs, ys = [point.x for point in points], [point.y for point in points]
    axes.plot(xs, ys, linestyle=line, linewidth=1, markersize=6, label=label, zorder=3, **style)
    rings = [point for point in points if point.chosen]
    axes.plot(
        [point.x for point in rings], [point.y for point in rings], linestyle="", marker="o", markersize=13,
        markerfacecolor="none", markeredgecolor="#1f2328", markeredgewidth=1.4, zorder=4,
        label="chosen" if rings else None,
    )  # fmt: skip


def _reference(axes: Axes, run: Run) -> None:
    """Draw the teacher's accuracy, and the least that the study allows."""
    teacher = run.systems[0].fp32.accuracy
    for level, style, label in (
        (teacher, "--", f"teacher, {teacher:.2f}"),
        (teacher - run.budget, ":", f"least allowed, {teacher - run.budget:.2f}"),
    ):
        axes.axhline(level, color=_QUIET, linestyle=style, linewidth=1, label=label, zorder=1)


def _finished(figure: Figure, axes: Axes, points: Sequence[_Point]) -> bytes:
    """Add labels and legend and return the PNG."""
    axes.margins(x=0.12, y=0.18)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.canvas.draw()  # so that the layout is known, in which labels find their places
    figure.set_layout_engine("none")
    _place(figure, axes, points)
    found = io.BytesIO()
    figure.savefig(found, format="png", metadata={"Software": None})
    return found.getvalue()


def _place(figure: Figure, axes: Axes, points: Sequence[_Point]) -> None:
    """Write the labels, each where it hides least, with a line to its point if it stands far away."""
    frame, taken = axes.get_window_extent(), [*_boxes(axes, points)]
    for point in points:
        hidden = []
        for place in _PLACES:
            text = _write(axes, point, place)
            box = _text_box(figure, text)
            text.remove()
            outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
            hidden.append((outside, sum(box.overlaps(other) for other in taken)))
            if hidden[-1] == (False, 0):
                break
        best = min(range(len(hidden)), key=hidden.__getitem__)
        taken.append(_text_box(figure, _write(axes, point, _PLACES[best])))


def _boxes(axes: Axes, points: Sequence[_Point]) -> Iterator[Bbox]:
    """Yield boxes, in pixels, that cover the points and all lines."""
    from matplotlib.transforms import Bbox

    for point in points:
        x, y = axes.transData.transform((point.x, point.y))
        half = 15 if point.chosen else 10
        yield Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half)
    for line in axes.get_lines():
        if line.get_linestyle() == "None":
            continue
        corners = line.get_transform().transform(line.get_xydata())
        for (x0, y0), (x1, y1) in itertools.pairwise(corners.tolist()):
            steps = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / 6))
            for step in range(steps + 1):
                yield Bbox.from_bounds(x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps, 1, 1)


@dataclass(frozen=True)
class _Place:
    """Where a label may stand, in points to the right and upwards of its own; far from that it needs a line to it."""

    across: float
    up: float
    far: bool


_NEAR = 7
_PLACES = [_Place(across, up, False) for across, up in ((0, _NEAR), (0, -_NEAR), (_NEAR, 0), (-_NEAR, 0))] + [
    _Place(across * distance, up * distance, distance > 1)
    for distance in (1, 2, 3, 4, 5, 6, 8)
    for across, up in ((5, 7), (5, -7), (-5, 7), (-5, -7), (14, 5), (14, -5), (-14, 5), (-14, -5))
]


def _write(axes: Axes, point: _Point, place: _Place) -> Annotation:
    return axes.annotate(
        point.label, (point.x, point.y), (place.across, place.up), textcoords="offset points", fontsize=8, zorder=5,
        ha="left" if place.across > 0 else "right" if place.across < 0 else "center",
        va="bottom" if place.up > 0 else "top" if place.up < 0 else "center", annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": _QUIET, "linewidth": 0.5, "shrinkB": 3} if place.far else None,
    )  # fmt: skip


def _text_box(figure: Figure, text: Annotation) -> Bbox:
    """Return the box of the words alone, in pixels, without the line to the point."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    canvas: Any = figure.canvas
    text.update_positions(canvas.get_renderer())
    return Bbox(Text.get_window_extent(text).padded(2).get_points())
