"""The pictures of a ``frontiers`` run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptive.core.frontiers.curve import HALF, Curve, Point
from adaptive.core.report.labels import label
from adaptive.core.report.spots import spot
from adaptive.core.report.style import INK, MUTED, PAPER, SERIES, canvas, house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 2.65, 2.5  # inches of a panel: three are as wide as a page
RING = {"ms": 11, "mfc": "none", "mec": INK, "mew": 1.3}


@house_style
def panel(curve: Curve, *, title: str, cost: str, quality: str, notes: Mapping[str, str]) -> Figure:
    """A part's runs: its own quality over the share of the reference's cost.

    Args:
        curve: the part's points.
        title: its name.
        cost: what is spent, in few words, as a panel is narrow.
        quality: label of what it buys.
        notes: name of a run, or of the reference, to what pointing at it tells.
    """
    figure, axes = canvas(WIDTH, HEIGHT)
    related = curve.reference is not None

    def place(point: Point) -> tuple[float, float] | None:
        across = point.cost if not related else point.share
        return None if across is None else (across * (100 if related else 1), point.quality)

    others = [at for p in curve.points if not p.best and (at := place(p))]
    best = [at for p in curve.points if p.best and (at := place(p))]
    line = best
    if curve.reference is not None:
        end = (100.0, curve.reference.quality)
        line = sorted([*best, end]) if curve.reference.best else best
        axes.axvline(100 * HALF, color=MUTED, lw=1.2, ls=(0, (4, 3)))
        axes.plot(*end, "D", color=INK, ms=6, zorder=3)
    if others:
        axes.plot(*zip(*others, strict=True), "o", mfc=PAPER, mec=MUTED, ms=5, zorder=2)
    axes.plot([x for x, _ in line], [y for _, y in line], "-", color=SERIES[0])
    axes.plot([x for x, _ in best], [y for _, y in best], "o", color=SERIES[0], mec=PAPER, mew=0.8)
    _ring(axes, curve, 100.0, None)
    for point in curve.known:
        if at := place(point):
            spot(axes, *at, notes[point.name])
    axes.set(xlabel=f"{cost}, % of reference" if related else cost, ylabel=quality)
    axes.set_title(title)
    if related:
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    axes.margins(y=0.12)
    return figure


@house_style
def kept_plot(curves: Mapping[str, Curve], notes: Mapping[str, Mapping[str, str]]) -> Figure:
    """All frontiers in one picture: share of the quality that is kept over share of the cost.

    Args:
        curves: of the parts.
        notes: of each part, as of :func:`panel`.
    """
    figure, axes = canvas(height=3.7)
    axes.axvline(100 * HALF, color=MUTED, lw=1.2, ls=(0, (4, 3)))
    for i, (name, curve) in enumerate(curves.items()):
        points = [
            (100 * p.share, 100 * p.kept, p)
            for p in curve.known
            if (p.best or p is curve.reference) and p.share is not None and p.kept is not None
        ]
        if not points:
            continue
        shown = sorted((x, y) for x, y, p in points if p.best)
        style = {"color": SERIES[i % len(SERIES)], "mec": PAPER, "mew": 0.8}
        axes.plot(*zip(*shown, strict=True), "osD^vP"[i % 6] + "-", label=name, **style)
        _ring(axes, curve, 100.0, name)
        for x, y, p in points:
            spot(axes, x, y, f"{name}: {notes[name][p.name]}")
    axes.set(xlabel="cost (% of the reference)", ylabel="quality kept (%)")
    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    axes.margins(y=0.12)
    if len(curves) > 1:
        axes.legend(loc="lower right")
    return figure


def _ring(axes: Axes, curve: Curve, factor: float, name: str | None) -> None:
    """Marks the answer; with a name, in the picture of all parts, with its value beside it."""
    half = curve.half
    if half.share is None or half.quality is None:
        return
    if name is None:
        axes.plot([factor * half.share], [half.quality], "o", **RING)
    elif half.kept is not None:
        axes.plot([factor * half.share], [factor * half.kept], "o", **RING)
        text = f"{name} {factor * half.kept:.1f} %"
        label(axes, factor * half.share, factor * half.kept, text, fontsize=8.5)
