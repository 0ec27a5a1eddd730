"""Multilinear interpolation on grids that may have holes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

How = Literal["measured", "interpolated", "extrapolated"]
Point = tuple[float, ...]


class Estimate(NamedTuple):
    """A time and where it comes from.

    Attributes:
        seconds: the time.
        how: "measured" at this very point, "interpolated" between measured points, or
            "extrapolated" beyond them.
    """

    seconds: float
    how: How


RANK: dict[How, int] = {"measured": 0, "interpolated": 1, "extrapolated": 2}


def worst(*hows: How) -> How:
    """The least trustworthy of several origins."""
    return max(hows, key=RANK.__getitem__)


def interpolate(
    points: Mapping[Point, float], query: Point, *, extrapolate: bool = False
) -> Estimate | None:
    """Value at ``query``, linear along one axis after the other, or None where points lack.

    Along each axis the nearest points on both sides are used for which the remaining axes have
    an answer, so a hole in the grid widens the bracket instead of ending the search.

    Args:
        points: coordinates to positive values; all coordinates have the length of ``query``.
        query: coordinates of the value asked for.
        extrapolate: beyond the last point continue the line through the last two (never below
            zero, and below the range never above the first point).
    """
    if not points:
        return None
    if not query:
        return Estimate(next(iter(points.values())), "measured")
    slices: dict[float, dict[Point, float]] = {}
    for point, value in points.items():
        slices.setdefault(point[0], {})[point[1:]] = value

    def at(x: float, beyond: bool = False) -> Estimate | None:
        return interpolate(slices[x], query[1:], extrapolate=beyond)

    x = query[0]
    for beyond in (False, True) if extrapolate else (False,):
        if x in slices and (exact := at(x, beyond)):
            return exact
        below = [(s, e) for s in sorted(slices, reverse=True) if s < x and (e := at(s, beyond))]
        above = [(s, e) for s in sorted(slices) if s > x and (e := at(s, beyond))]
        if below and above:
            (x0, e0), (x1, e1) = below[0], above[0]
            line = e0.seconds + (e1.seconds - e0.seconds) * (x - x0) / (x1 - x0)
            return Estimate(line, worst(e0.how, e1.how, "interpolated"))
        side = below or above
        if beyond and len(side) > 1:
            (x0, e0), (x1, e1) = side[:2]
            line = e0.seconds + (e1.seconds - e0.seconds) * (x - x0) / (x1 - x0)
            return Estimate(
                max(line, 0.0) if below else min(max(line, 0.0), e0.seconds), "extrapolated"
            )
    return None
