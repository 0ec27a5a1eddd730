"""Multilinear interpolation on grids that may have holes, plain or as a correction of a model.

Legend: C channels (value, least and largest corner), L lines along an axis, N points on a line,
Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

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


class Grid:
    """Times at the points of a grid, continued between them.

    Along each axis the nearest points on both sides are used for which the axes after it have an
    answer, so a hole in the grid widens the bracket instead of ending the search.

    With a model, the ratio of measured to modelled times is interpolated instead of the times, and
    the result is kept between the least and the largest time at the corners of the cell: a time
    grows with every size, so it cannot leave them, while a model may bend too much.

    Args:
        points: coordinates to positive times; at least one, all of one length.
        model: modelled time of each point; None interpolates the times themselves, as does a model
            that has a point for free.
        logs: axes (by position) whose logarithm counts where a model is given.
    """

    def __init__(
        self,
        points: Mapping[Point, float],
        model: Mapping[Point, float] | None = None,
        logs: Sequence[int] = (),
    ):
        columns = [np.array(column) for column in zip(*points, strict=True)]
        if model is not None and min(model.values()) <= 0:
            model = None
        self.points, self.modelled = points, model is not None
        self.logs = set(logs) if self.modelled else set()
        self.nodes = [self._scale(i, np.unique(column)) for i, column in enumerate(columns)]
        where = tuple(
            np.searchsorted(nodes, self._scale(i, column))
            for i, (nodes, column) in enumerate(zip(self.nodes, columns, strict=True))
        )
        times = np.array(list(points.values()))
        ratios = times if model is None else times / np.array([model[point] for point in points])
        self.values_C = np.full((3, *map(len, self.nodes), 1), np.nan)
        for channel, values in enumerate((ratios, times, times)):
            self.values_C[(channel, *where, 0)] = values

    def _scale(self, axis: int, x: np.ndarray) -> np.ndarray:
        return np.log2(1 + x) if axis in self.logs else x

    def at(
        self,
        queries: Sequence[Point],
        model: np.ndarray | None = None,
        *,
        extrapolate: bool = False,
    ) -> tuple[np.ndarray, list[How]]:
        """Times at ``queries`` and where each comes from.

        Args:
            queries: Q points.
            model: modelled time of each query, [Q]; given if the grid has a model.
            extrapolate: answer beyond the last points. Without a model, the line through the last
                two goes on (never below zero, and below the range never above the first point);
                with one, the ratio of the nearest point holds.

        Returns:
            times [Q], NaN where points lack, and their origins.
        """
        inside_C = beyond_C = self.values_C
        for axis in reversed(range(len(self.nodes))):
            x_Q = self._scale(axis, np.array([query[axis] for query in queries], dtype=float))
            if extrapolate:
                hold = self.modelled
                beyond_C = _along(beyond_C, self.nodes[axis], x_Q, "hold" if hold else "line")
            inside_C = _along(inside_C, self.nodes[axis], x_Q)
            if extrapolate:
                beyond_C = np.where(np.isnan(inside_C), beyond_C, inside_C)
        seconds_Q, least_Q, largest_Q = inside_C
        if not self.modelled:
            model = None
        if model is not None:
            seconds_Q = np.clip(seconds_Q * model, least_Q, largest_Q)
        answered_Q = ~np.isnan(seconds_Q)
        if extrapolate:
            outside_Q = beyond_C[0] if model is None else beyond_C[0] * model
            seconds_Q = np.where(answered_Q, seconds_Q, outside_Q)
        hows: list[How] = ["interpolated" if ok else "extrapolated" for ok in answered_Q]
        for i, query in enumerate(queries):
            if query in self.points:  # kept as measured by its only corner
                hows[i] = "measured"
        return seconds_Q, hows


def _along(
    values_CLNQ: np.ndarray,
    nodes_N: np.ndarray,
    x_Q: np.ndarray,
    beyond: Literal["line", "hold"] | None = None,
) -> np.ndarray:
    """Values [C, ..., Q] at ``x_Q`` from values [C, ..., N, Q or 1] at ``nodes_N``."""
    (_, *lead, size, width), count = values_CLNQ.shape, len(x_Q)
    values_CLNQ = values_CLNQ.reshape(3, -1, size, width)
    order_N1 = np.arange(size)[:, None]
    valid_LNQ = ~np.isnan(values_CLNQ[0])
    # The nearest valid node at or before, and at or after, each node.
    before_LNQ = np.maximum.accumulate(np.where(valid_LNQ, order_N1, -1), axis=1)
    after_LNQ = np.where(valid_LNQ, order_N1, size)[:, ::-1]
    after_LNQ = np.minimum.accumulate(after_LNQ, axis=1)[:, ::-1]

    line_L1 = np.arange(values_CLNQ.shape[1])[:, None]
    query = np.arange(count) if width > 1 else 0

    def pick(array: np.ndarray, node: np.ndarray) -> np.ndarray:
        """array [..., L, N, Q or 1] at the nodes, [Q] or [L, Q]; any where they do not exist."""
        return array[..., line_L1, np.minimum(np.maximum(node, 0), size - 1), query]

    def near(array: np.ndarray, node: np.ndarray, none: int) -> np.ndarray:
        """before or after at the nodes; ``none`` where they do not exist."""
        return np.where((node >= 0) & (node < size), pick(array, node), none)

    def node_at(index: np.ndarray) -> np.ndarray:
        return nodes_N[np.minimum(np.maximum(index, 0), size - 1)]

    below_LQ = near(before_LNQ, nodes_N.searchsorted(x_Q, "right") - 1, -1)
    above_LQ = near(after_LNQ, nodes_N.searchsorted(x_Q, "left"), size)
    low_CLQ, high_CLQ = pick(values_CLNQ, below_LQ), pick(values_CLNQ, above_LQ)
    x_low_LQ = node_at(below_LQ)
    gap_LQ = node_at(above_LQ) - x_low_LQ
    weight_LQ = np.where(gap_LQ > 0, (x_Q - x_low_LQ) / np.where(gap_LQ > 0, gap_LQ, 1), 0)
    out_CLQ = np.empty_like(low_CLQ)
    out_CLQ[0] = low_CLQ[0] + (high_CLQ[0] - low_CLQ[0]) * weight_LQ
    np.minimum(low_CLQ[1], high_CLQ[1], out=out_CLQ[1])
    np.maximum(low_CLQ[2], high_CLQ[2], out=out_CLQ[2])
    has_low, has_high = below_LQ >= 0, above_LQ < size
    out_CLQ[:, ~(has_low & has_high)] = np.nan
    if beyond:
        for here, edge, array, step, none in (
            (has_low & ~has_high, below_LQ, before_LNQ, -1, -1),
            (has_high & ~has_low, above_LQ, after_LNQ, 1, size),
        ):
            value_LQ = pick(values_CLNQ, edge)[0]
            if beyond == "line":
                second = near(array, edge + step, none)
                known = second != none
                run_LQ = np.where(known, node_at(second) - node_at(edge), 1)
                rise_LQ = pick(values_CLNQ, second)[0] - value_LQ
                line_LQ = np.maximum(value_LQ + rise_LQ / run_LQ * (x_Q - node_at(edge)), 0)
                bounded_LQ = line_LQ if step < 0 else np.minimum(line_LQ, value_LQ)
                value_LQ = np.where(known, bounded_LQ, np.nan)
            out_CLQ[:, here] = value_LQ[here]
    return out_CLQ.reshape(3, *lead, count)
