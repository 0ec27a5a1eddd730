"""The pictures of a run. Every function returns a Matplotlib figure for ``Report.figure``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from adaptive.core.report.labels import label
from adaptive.core.report.markup import format_number
from adaptive.core.report.spots import MOST, spot, strip
from adaptive.core.report.style import (
    GRID,
    INK,
    MUTED,
    PAPER,
    SERIES,
    canvas,
    house_style,
    plain_log,
)

STRIPS = 80  # steps of curves that tell their values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[SupportsFloat, SupportsFloat]]


@house_style
def frontier_plot(
    points: Points,
    *,
    x: str,
    y: str,
    others: Mapping[str, Points] | None = None,
    marked: Mapping[str, tuple[SupportsFloat, SupportsFloat]] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    name: str = "frontier",
) -> Figure:
    """The Pareto frontier, with what it is compared to. Pointing at a point tells what it is.

    Args:
        points: (cost, loss) of the frontier, in any order.
        x: label of the horizontal axis with its unit, such as ``"latency (ms)"``.
        y: label of the vertical axis.
        others: name to points of baselines, drawn apart.
        marked: name to single points that get their name beside them (the parent, the child).
        notes: name of the frontier, of another or of a marked point to what pointing at its points
            adds to their values, a text each, such as the choices; lines are apart by newlines.
        name: of the frontier itself.
    """
    figure, axes = canvas(height=3.7)
    if points:
        across, up = _columns(sorted(points, key=lambda point: float(point[0])))
        axes.plot(across, up, "o-", color=SERIES[0], label=name, mec=PAPER, mew=0.8)
    markers = "s^Dvp"
    for i, (title, values) in enumerate((others or {}).items()):
        across, up = _columns(values)
        style = {"color": SERIES[1 + i % 5], "marker": markers[i % 5]}
        axes.plot(across, up, linestyle="", label=title, mec=PAPER, mew=0.8, ms=6.5, **style)
    for title, point in (marked or {}).items():
        across, up = float(point[0]), float(point[1])
        axes.plot([across], [up], "o", ms=11, mfc="none", mec=INK, mew=1.3)
        label(axes, across, up, title, weight="bold", color=INK)
    every: dict[str, Points] = {name: points, **(others or {})}
    every |= {title: [point] for title, point in (marked or {}).items()}
    for title, values in every.items():
        more = (notes or {}).get(title, ())
        for i, (across, up) in enumerate(zip(*_columns(values), strict=True)):
            text = f"{title}\n{x}: {format_number(across)}\n{y}: {format_number(up)}"
            spot(axes, across, up, f"{text}\n{more[i]}" if i < len(more) and more[i] else text)
    axes.set(xlabel=x, ylabel=y)
    axes.margins(0.08, 0.1)
    if others:
        axes.legend(loc="best")
    return figure


@house_style
def predicted_measured_plot(
    rows: Sequence[Mapping[str, Any]], *, unit: str, band: float = 0.1
) -> Figure:
    """Measured against predicted, with the line on which they agree; few points get their name and
    error beside them: predicted over measured, minus one.

    Args:
        rows: mappings with ``name``, ``predicted`` and ``measured`` in one unit.
        unit: for the axes, such as ``"ms"``.
        band: half the width of the shaded band, as a share.
    """
    figure, axes = canvas(height=3.9)
    predicted = np.array([row["predicted"] for row in rows], dtype=float)
    measured = np.array([row["measured"] for row in rows], dtype=float)
    both = np.concatenate([predicted, measured])
    low, high = both.min() * 0.85, both.max() * 1.15
    line = np.array([low, high])
    axes.fill_between(line, line * (1 - band), line * (1 + band), color=SERIES[0], alpha=0.1, lw=0)
    axes.plot(line, line, color=MUTED, lw=1)
    axes.plot(predicted, measured, "o", color=SERIES[0], mec=PAPER, mew=0.8, ms=7)
    axes.set(xlim=(low, high), ylim=(low, high))
    if high / low > 30:
        plain_log(axes, "x")
        plain_log(axes, "y")
    for row, across, up in zip(rows, predicted, measured, strict=True):
        error = f"{across / up - 1:+.1%}"
        if len(rows) <= 6 and row["name"]:  # more labels than that would hide each other
            label(axes, across, up, f"{row['name']} ({error})", fontsize=8.5)
        values = f"predicted {format_number(across)} {unit}\nmeasured {format_number(up)} {unit}"
        title = f"{row['name']}\n" if row["name"] else ""
        spot(axes, across, up, f"{title}{values}\nerror {error}")
    axes.set(xlabel=f"predicted ({unit})", ylabel=f"measured ({unit})")
    axes.set_title(f"band: ±{band:.0%}", fontsize=8.5, fontweight="normal", color=MUTED)
    return figure


@house_style
def ladder_plot(
    ladders: Mapping[str, Iterable[SupportsFloat]],
    *,
    y: str = "score",
    x: str = "layer",
    log: bool = True,
) -> Figure:
    """Score of every option by layer: a ladder is monotone where its lines do not cross.

    Args:
        ladders: label of an option to its score in each layer (NaN where it has none), from the
            mildest option to the most radical; drawn in ever stronger colour.
        y: label of the scores.
        x: label of the groups.
        log: logarithmic scale, where all scores are positive.
    """
    figure, axes = canvas(height=3.7)
    count = len(ladders)
    lines = {name: np.array([float(v) for v in values]) for name, values in ladders.items()}
    for i, (name, values) in enumerate(lines.items()):
        few = count <= len(SERIES)
        color = SERIES[i] if few else SERIES[0]
        alpha = 1.0 if few else 0.2 + 0.8 * i / (count - 1)
        axes.plot(range(len(values)), values, "o-", color=color, alpha=alpha, ms=3.5, label=name)
    if log and all((values[np.isfinite(values)] > 0).all() for values in lines.values()):
        plain_log(axes, "y")
    _ladder_spots(axes, lines, x)
    axes.set(xlabel=x, ylabel=y)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.03)
    columns = 1 if count <= 18 else 2
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), ncols=columns)
    return figure


@house_style
def curves_plot(
    curves: Mapping[str, Points],
    *,
    x: str = "step",
    y: str = "loss",
    log: bool = False,
    doublings: bool = False,
    mark: tuple[str, float] | None = None,
    again: tuple[str, float] | None = None,
) -> Figure:
    """Training curves. Pointing at a step tells the values of all of them there.

    Args:
        curves: name to (step, value) pairs; see :func:`adaptive.core.report.curves_of`.
        x: label of the steps.
        y: label of the values.
        log: logarithmic values.
        doublings: logarithmic steps, to the base of two.
        mark: name and step of a vertical line.
        again: a second scale above: its name and how many of it a step is, such as
            ``("tokens", 8192)``.
    """
    figure, axes = canvas(height=3.3)
    for i, (name, values) in enumerate(curves.items()):
        across, up = _columns(values)
        # Few points are not a course yet: they are shown as what they are.
        marks = {"marker": "o", "ms": 3.5} if len(across) <= 20 else {}
        axes.plot(across, up, color=SERIES[i % len(SERIES)], label=name, **marks)
    if log:
        plain_log(axes, "y")
    if doublings:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    elif all(float(step).is_integer() for values in curves.values() for step, _ in values):
        axes.xaxis.get_major_locator().set_params(integer=True)
    if again:
        name, factor = again
        above = axes.secondary_xaxis(
            "top", functions=(lambda steps: steps * factor, lambda more: more / factor)
        )
        above.set_xlabel(name)
        above.tick_params(labelsize=8.5, colors=MUTED)
    _curve_strips(axes, curves, x)
    if mark:
        axes.axvline(mark[1], color=MUTED, lw=1.2, ls=(0, (4, 3)))
        axes.set_title(f"dashed: {mark[0]}", fontsize=8.5, fontweight="normal", color=MUTED)
    axes.set(xlabel=x, ylabel=y)
    if len(curves) > 3:  # room inside is for the curves
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    elif len(curves) > 1:
        axes.legend(loc="best")
    return figure


@house_style
def compare_plot(
    values: Mapping[str, SupportsFloat],
    *,
    x: str,
    reference: tuple[str, SupportsFloat] | None = None,
) -> Figure:
    """One dot a method, the best at the top.

    Dots, not bars: losses differ in the second digit, and a bar has to begin at zero.

    Args:
        values: name to value; smaller is better.
        x: label with its unit.
        reference: name and value of a line to compare with, such as the parent's loss.
    """
    ranked = sorted(((name, float(v)) for name, v in values.items()), key=lambda item: -item[1])
    line = None if reference is None else float(reference[1])
    figure, axes = canvas(height=1.0 + 0.3 * len(ranked))
    rows = range(len(ranked))
    start = ranked[-1][1] if line is None else line
    axes.hlines(rows, start, [v for _, v in ranked], color=SERIES[0], alpha=0.35, lw=2)
    axes.plot([v for _, v in ranked], rows, "o", color=SERIES[0], ms=8, mec=PAPER, mew=0.8)
    for row, (_, value) in enumerate(ranked):
        axes.annotate(f"{value:.4g}", (value, row), (9, 0), textcoords="offset points", va="center")
    for row, (name, value) in enumerate(ranked):
        more = (
            "" if reference is None else f"\n{value - float(reference[1]):+.4g} to {reference[0]}"
        )
        spot(axes, value, row, f"{name}\n{x}: {value:.4g}{more}")
    if reference:
        axes.axvline(reference[1], color=MUTED, lw=1.2, ls=(0, (4, 3)))
        axes.set_title(
            f"dashed: {reference[0]}, {reference[1]:.4g}",
            fontsize=8.5,
            fontweight="normal",
            color=MUTED,
        )
    axes.set_yticks(rows, [name for name, _ in ranked], color=INK)
    axes.set(xlabel=x, ylim=(-0.6, len(ranked) - 0.4))
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_color(GRID)
    return figure


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [float(x) for x, _ in points], [float(y) for _, y in points]


def _ladder_spots(axes: Axes, lines: Mapping[str, np.ndarray], x: str) -> None:
    """A text for each score; for each layer where there are too many."""
    if sum(map(len, lines.values())) <= MOST:
        for name, values in lines.items():
            for layer, value in enumerate(values):
                if math.isfinite(value):
                    spot(axes, layer, value, f"{name}, {x} {layer}\n{format_number(float(value))}")
        return
    for layer in range(max(map(len, lines.values()))):
        here = {n: float(v[layer]) for n, v in lines.items() if layer < len(v)}
        here = {n: value for n, value in here.items() if math.isfinite(value)}
        if here:
            ends = [(end.__name__, end(here, key=here.__getitem__)) for end in (min, max)]
            told = "".join(f"\n{e}: {n} {format_number(here[n])}" for e, n in ends)
            strip(axes, layer - 0.5, layer + 0.5, f"{x} {layer}, {len(here)} options{told}")


def _curve_strips(axes: Axes, curves: Mapping[str, Points], x: str) -> None:
    """A text for each of some steps, with the value that every curve had there last."""
    columns = {name: _columns(values) for name, values in curves.items() if len(values)}
    steps = np.array(sorted({step for across, _ in columns.values() for step in across}))
    if len(steps) > STRIPS:
        steps = steps[np.linspace(0, len(steps) - 1, STRIPS).round().astype(int)]
    if not len(steps):
        return
    half = 0.5 if len(steps) == 1 else 0.0  # a step alone has no neighbour to share the axis with
    middles = (steps[:-1] + steps[1:]) / 2
    edges = [steps[0] - half, *middles, steps[-1] + half]
    for step, left, right in zip(steps, edges[:-1], edges[1:], strict=True):
        told = [f"{x} {step:g}"]
        for name, (across, up) in columns.items():
            past = [value for other, value in zip(across, up, strict=True) if other <= step]
            if past:
                told.append(f"{name}: {format_number(past[-1])}")
        strip(axes, left, right, "\n".join(told))
