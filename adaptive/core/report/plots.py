"""The pictures of a run. Every function returns a Matplotlib figure for ``Report.figure``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from adaptive.core.report.style import GRID, INK, MUTED, PAPER, SERIES, canvas, house_style

SHADES = 12  # of the heat map

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
) -> Figure:
    """The Pareto frontier, with what it is compared to.

    Args:
        points: (cost, loss) of the frontier, in any order.
        x: label of the horizontal axis with its unit, such as ``"latency (ms)"``.
        y: label of the vertical axis.
        others: name to points of baselines, drawn apart.
        marked: name to single points that get their name beside them (the parent, the child).
    """
    figure, axes = canvas(height=3.7)
    if points:
        across, up = _columns(sorted(points, key=lambda point: float(point[0])))
        axes.plot(across, up, "o-", color=SERIES[0], label="frontier", mec=PAPER, mew=0.8)
    markers = "s^Dvp"
    for i, (name, values) in enumerate((others or {}).items()):
        across, up = _columns(values)
        style = {"color": SERIES[1 + i % 5], "marker": markers[i % 5]}
        axes.plot(across, up, linestyle="", label=name, mec=PAPER, mew=0.8, ms=6.5, **style)
    for name, point in (marked or {}).items():
        across, up = float(point[0]), float(point[1])
        axes.plot([across], [up], "o", ms=11, mfc="none", mec=INK, mew=1.3)
        axes.annotate(
            name, (across, up), (8, 7), textcoords="offset points", weight="bold", color=INK
        )
    axes.set(xlabel=x, ylabel=y)
    axes.margins(0.08, 0.1)
    if others:
        axes.legend(loc="best")
    return figure


@house_style
def allocation_plot(
    problem: Any,
    allocation: Any,
    *,
    resource: str | None = None,
    title: str = "loss of each option",
) -> Figure:
    """What every group was given, beside what it had.

    On the left all options of all groups, darker where taking one would cost more quality; on the
    right each group's share of a resource, as an outline for the reference and filled for the
    choice.

    Args:
        problem: a ``ChoiceProblem`` of G groups and at most K options.
        allocation: its ``Allocation``, or [G] option indices.
        resource: for the right side; the problem's first one when left out.
        title: of the left side.
    """
    choice_G = problem.check_choice(allocation)
    reference_G = problem.reference
    groups, options = problem.num_groups, problem.num_options
    resource = next(iter(problem.cost)) if resource is None else resource
    row = 0.2 if groups <= 40 else max(0.09, 8 / groups)
    figure, (left, right) = canvas(
        height=1.35 + row * groups, columns=2, sharey=True, width_ratios=[2.4, 1]
    )
    _loss_cells(left, problem)
    rows = np.arange(groups)
    size = min(36.0, 1500 * row**2)
    left.scatter(reference_G, rows, s=size, marker="s", facecolor="none", edgecolor=MUTED, lw=0.9)
    left.scatter(choice_G, rows, s=size * 0.8, color=SERIES[1], lw=0, zorder=3)
    shared = len({tuple(labels) for labels in problem.options}) == 1
    if shared and options <= 60:
        small = 8.5 if options <= 16 else 6.5
        left.set_xticks(range(options), problem.options[0], rotation=90, fontsize=small)
    else:
        left.set_xlabel("option")
    step = math.ceil(groups / 40)
    left.set_yticks(range(0, groups, step), problem.groups[::step], fontsize=7.5)
    left.invert_yaxis()
    left.grid(False)
    left.set_title(title)

    cost_GK = problem.cost[resource]
    reference = cost_GK[rows, reference_G]
    scale = 100 / max(float(np.nansum(reference)), 1e-300)
    right.barh(rows, reference * scale, 0.82, fill=False, ec=MUTED, lw=0.7, label="reference")
    chosen = cost_GK[rows, choice_G] * scale
    right.barh(rows, chosen, 0.82, color=SERIES[1], alpha=0.85, label="choice")
    right.tick_params(labelleft=False, left=False)
    right.grid(axis="y", visible=False)
    right.set_title(f"{resource}: {chosen.sum():.0f} %")
    right.set_xlabel("% of the reference's total")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2)
    return figure


def _loss_cells(axes: Axes, problem: Any) -> None:
    """Draws one cell an option, with an opacity that grows with the rank of its loss."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    loss_GK = np.where(problem.available, problem.loss, np.nan)
    # Ranks, not values: losses span decades, and the picture is about which option hurts more.
    order = np.sort(loss_GK[np.isfinite(loss_GK)])
    rank_GK = np.searchsorted(order, np.nan_to_num(loss_GK)) / max(1, len(order) - 1)
    # One path for each shade: thousands of single cells would make a page of megabytes.
    shade_GK = np.ceil(rank_GK * SHADES).astype(int)
    corners = np.array([[-0.46, -0.44], [0.46, -0.44], [0.46, 0.44], [-0.46, 0.44]])
    for shade in range(SHADES + 1):
        cells = np.argwhere(problem.available & (shade_GK == shade))[:, ::-1]
        if len(cells):
            squares = cells[:, None, :] + corners
            path = Path.make_compound_path_from_polys(squares)
            opacity = 0.04 + 0.8 * shade / SHADES
            axes.add_patch(PathPatch(path, color=SERIES[0], alpha=opacity, lw=0))
    axes.set_xlim(-0.6, problem.num_options - 0.4)
    axes.set_ylim(-0.6, problem.num_groups - 0.4)


@house_style
def predicted_measured_plot(
    rows: Sequence[Mapping[str, Any]], *, unit: str, band: float = 0.1
) -> Figure:
    """Measured against predicted, with the line on which they agree; few points get their error,
    predicted over measured minus one.

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
    if len(rows) <= 6:  # more labels than that would hide each other
        for row in rows:
            error = row["predicted"] / row["measured"] - 1
            axes.annotate(
                f"{row['name']} ({error:+.1%})",
                (row["predicted"], row["measured"]),
                (8, -11),  # below the line of agreement
                textcoords="offset points",
                fontsize=8.5,
            )
    if high / low > 30:
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=f"predicted ({unit})", ylabel=f"measured ({unit})", xlim=(low, high))
    axes.set_ylim(low, high)
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
        axes.set_yscale("log")
    axes.set(xlabel=x, ylabel=y)
    axes.xaxis.get_major_locator().set_params(integer=True)
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
) -> Figure:
    """Training curves.

    Args:
        curves: name to (step, value) pairs.
        x: label of the steps.
        y: label of the values.
        log: logarithmic values.
        doublings: logarithmic steps, to the base of two.
        mark: name and step of a vertical line.
    """
    figure, axes = canvas(height=3.3)
    for i, (name, values) in enumerate(curves.items()):
        across, up = _columns(values)
        axes.plot(across, up, color=SERIES[i % len(SERIES)], label=name)
    if log:
        axes.set_yscale("log")
    if doublings:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
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
