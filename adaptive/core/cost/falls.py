"""Where a table of times is not monotone: sizes at which more work takes less time.

Time grows with the batch, the number of tokens, the length, the width and the KV heads. Where it
falls all the same, another kernel takes over, and the size before is one to avoid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adaptive.core.cost.interpolate import Point
from adaptive.core.cost.rows import RowKey, Series
from adaptive.core.cost.table import MeasuredTable

TOLERANCE = 0.03  # beside the spreads of the two rows


@dataclass(frozen=True)
class Fall:
    """A step along one axis that takes less time.

    Attributes:
        key: of the row before the step.
        axis: along which it goes, such as "batch", "length" or "intermediate".
        to: the value after it.
        part: of the time before it that is gone.
    """

    key: RowKey
    axis: str
    to: float
    part: float


def falls(table: MeasuredTable, tolerance: float = TOLERANCE) -> list[Fall]:
    """The falls between neighbouring rows of a table, by block, phase and size.

    Args:
        table: of measured times.
        tolerance: of a fall, relative, beyond half the interquartile ranges of the two rows.
    """
    found = (
        fall
        for series in table.series().values()
        for axis in range(len(series.names))
        for fall in _along(series, axis, tolerance)
    )
    return sorted(found, key=lambda fall: (fall.key, fall.axis))


def _along(series: Series, axis: int, tolerance: float) -> Iterator[Fall]:
    lines: dict[Point, list[Point]] = {}
    for point in sorted(series.rows):
        lines.setdefault((*point[:axis], *point[axis + 1 :]), []).append(point)
    for line in lines.values():
        for low, high in zip(line, line[1:], strict=False):
            before, after = (max(series.rows[p], key=lambda row: row.spread) for p in (low, high))
            fall = 1 - series.points[high] / series.points[low]
            if fall > tolerance + before.spread + after.spread:
                yield Fall(before.key, series.names[axis], high[axis], fall)
