"""A part's frontier relative to its reference, and what it keeps at half of the cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from adaptive.core.collect.pareto import not_dominated
from adaptive.core.run.task import Axis

HALF = 0.5
NEAR = 0.01  # of the reference's cost: a point so close to half is at half


@dataclass(frozen=True)
class Point:
    """A run, or the reference.

    Attributes:
        name: of the run.
        cost, quality: as its summary has them.
        share: of the reference's cost, less being cheaper; None without a reference.
        kept: of the reference's quality, 1 being as good; None where that has no meaning.
        best: no other point is as good at less cost.
    """

    name: str
    cost: float
    quality: float
    share: float | None = None
    kept: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Half:
    """The quality at half of the reference's cost.

    Attributes:
        quality, kept: as of a :class:`Point`; None where the frontier does not tell.
        how: measured at what share, interpolated between which, or why there is none.
        share: of the reference's cost, where it was measured or half.
    """

    quality: float | None
    kept: float | None
    how: str
    share: float | None = None


@dataclass(frozen=True)
class Curve:
    """The points of a part.

    Attributes:
        points: of all runs that measured both numbers, from the cheapest.
        reference: what they are relative to, itself a measured point; None without one.
        half: the answer.
    """

    points: list[Point]
    reference: Point | None
    half: Half

    @property
    def best(self) -> list[Point]:
        """The runs on the frontier."""
        return [point for point in self.points if point.best]

    @property
    def known(self) -> list[Point]:
        """All points, the reference last."""
        return [*self.points, *([] if self.reference is None else [self.reference])]


def share_of(value: float, reference: float, more: bool) -> float | None:
    """A cost relative to the reference's; of a rate, where more is better, the time that it takes.

    >>> share_of(2.0, 4.0, more=False), share_of(200.0, 100.0, more=True)
    (0.5, 0.5)
    """
    above, below = (reference, value) if more else (value, reference)
    return above / below if above >= 0 and below > 0 else None


def kept_of(value: float, reference: float, more: bool) -> float | None:
    """A quality relative to the reference's: 1 is as good, less is worse, for a loss too.

    >>> kept_of(60.0, 80.0, more=True), kept_of(4.0, 3.0, more=False)
    (0.75, 0.75)
    """
    return share_of(value, reference, not more)


def relative(
    points: Sequence[tuple[Point, tuple[float, float] | None]], cost: Axis, quality: Axis
) -> tuple[list[Point], Point | None]:
    """The points with their shares, and the reference as one.

    Args:
        points: each with the (cost, quality) of its reference. A reference that every run measures
            in turns with itself differs a little between runs, and the ratio is what is sure.
        cost: the number that is spent.
        quality: the number that it buys.
    """
    known = [reference for _, reference in points if reference is not None]
    if not known:
        return [point for point, _ in points], None
    typical = statistics.median(c for c, _ in known), statistics.median(q for _, q in known)
    found = []
    for point, own in points:
        base_cost, base_quality = own or typical
        share = share_of(point.cost, base_cost, cost.more)
        found.append(
            replace(point, share=share, kept=kept_of(point.quality, base_quality, quality.more))
        )
    return found, Point("reference", *typical, share=1.0, kept=1.0)


def curve_of(
    points: Sequence[tuple[Point, tuple[float, float] | None]],
    cost: Axis,
    quality: Axis,
    lacking: str = "there is no reference",
) -> Curve:
    """The frontier of a part.

    Args:
        points: as of :func:`relative`, as are ``cost`` and ``quality``.
        cost: the number that is spent.
        quality: the number that it buys.
        lacking: why there is no reference, where there is none.
    """
    found, reference = relative(points, cost, quality)
    everything = found if reference is None else [*found, reference]
    if reference is None:
        plane = [(point.cost, point.quality) for point in everything]
    else:
        plane = [(_number(point.share), point.quality) for point in everything]
    x_more = reference is None and cost.more
    best = set(not_dominated(plane, x_more=x_more, y_more=quality.more))
    marked = [replace(point, best=i in best) for i, point in enumerate(everything)]
    if reference is not None:
        reference = marked.pop()
    marked.sort(key=lambda point: point.cost if point.share is None else point.share)
    return Curve(marked, reference, _half(marked, reference, quality, lacking))


def _half(points: Sequence[Point], reference: Point | None, quality: Axis, lacking: str) -> Half:
    if not points:
        return Half(None, None, "no run is done")
    if reference is None:
        return Half(None, None, lacking)
    placed = [(p.share, p) for p in (*points, reference) if p.best and p.share is not None]
    near = [(abs(share - HALF), share, p) for share, p in placed if abs(share - HALF) <= NEAR]
    if near:
        _, share, point = min(near, key=lambda one: one[0])
        return Half(point.quality, point.kept, f"measured at {share:.1%}", share)
    below = max(((s, p) for s, p in placed if s < HALF), key=lambda one: one[0], default=None)
    above = min(((s, p) for s, p in placed if s > HALF), key=lambda one: one[0], default=None)
    if below is None:
        shares = [point.share for point in points if point.share is not None]
        if not shares:
            return Half(None, None, "not reached: no run's cost is a share of the reference's")
        least = f"{min(shares):.1%}"
        return Half(None, None, f"not reached: the cheapest run costs {least} of the reference")
    low, cheap = below
    if above is None:  # what costs more is no better, the reference included
        how = f"measured at {low:.1%}, and what costs more is no better"
        return Half(cheap.quality, cheap.kept, how, low)
    high, dear = above
    part = (HALF - low) / (high - low)
    value = cheap.quality + part * (dear.quality - cheap.quality)
    kept = kept_of(value, reference.quality, quality.more)
    return Half(value, kept, f"interpolated between {low:.1%} and {high:.1%}", HALF)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value  # which no frontier counts
