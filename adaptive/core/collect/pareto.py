"""Points that no other point beats."""

from __future__ import annotations

import math
from collections.abc import Sequence


def not_dominated(
    points: Sequence[tuple[float, float]], *, x_more: bool = False, y_more: bool = False
) -> list[int]:
    """Positions of the points that no other equals in one value and beats in the other, or beats
    in both; in the order of x, and all of several equal ones.

    Args:
        points: (x, y); one with a value that is not finite neither counts nor beats.
        x_more: more of x is better, else less.
        y_more: likewise.
    """
    signs = (-1.0 if x_more else 1.0), (-1.0 if y_more else 1.0)
    ranked = sorted(
        ((signs[0] * x, signs[1] * y), i)
        for i, (x, y) in enumerate(points)
        if math.isfinite(x) and math.isfinite(y)
    )
    kept: list[int] = []
    best: tuple[float, float] | None = None
    for point, i in ranked:  # from the least x: what comes later has to be better in y
        if best is None or point[1] < best[1] or point == best:
            kept.append(i)
            best = point
    return kept if not x_more else kept[::-1]
