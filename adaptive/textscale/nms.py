"""Which of several boxes of the same word stays.

Boxes of oriented words overlap in their axis-aligned hulls without sharing a pixel, so the polygons
themselves are intersected; hulls only rule pairs out.

Shapes: N boxes, 4 corners, 2 coordinates, P pairs.
"""

from __future__ import annotations

import numpy as np
import shapely
from jaxtyping import Float, Float32, Int
from numpy import ndarray


def suppress(
    quad_N42: Float32[ndarray, "N 4 2"],
    rank_N: Float[ndarray, " N"],
    *,
    iou: float = 0.3,
    inside: float = 0.7,
) -> Int[ndarray, " kept"]:
    """Greedy non-maximum suppression of polygons.

    A box goes when a better one shares too much with it: by intersection over union, or by the
    share of the smaller of the two, which catches a part of a word beside the whole.

    Args:
        quad_N42: corners; concave quads count as their convex hulls.
        rank_N: which boxes are better, higher first.
        iou: largest intersection over union of two boxes that both stay.
        inside: largest intersection over the smaller area of two boxes that both stay.

    Returns:
        Indices of the boxes that stay, in ascending order.
    """
    hull_N4 = np.concatenate([quad_N42.min(1), quad_N42.max(1)], 1).astype(float)
    first_P, second_P = overlapping_pairs(hull_N4)
    if not len(first_P):
        return np.arange(len(quad_N42))
    # Exact also where edges coincide, as those of neighbouring chips' boxes do; OpenCV's
    # intersection of convex polygons is not.
    shape_N = shapely.convex_hull(shapely.polygons(quad_N42.astype(np.float64)))
    area_N = np.atleast_1d(shapely.area(shape_N))
    shared_P = shapely.area(shapely.intersection(shape_N[first_P], shape_N[second_P]))
    area_P2 = np.stack([area_N[first_P], area_N[second_P]], 1)
    same_P = (shared_P > iou * (area_P2.sum(1) - shared_P)) | (shared_P > inside * area_P2.min(1))
    rivals: dict[int, list[int]] = {}
    for i, j in zip(first_P[same_P].tolist(), second_P[same_P].tolist(), strict=True):
        rivals.setdefault(i, []).append(j)
        rivals.setdefault(j, []).append(i)
    alive_N = np.ones(len(quad_N42), bool)
    for i in sorted(rivals, key=lambda i: (-rank_N[i], i)):
        if alive_N[i]:
            alive_N[rivals[i]] = False
    return np.flatnonzero(alive_N)


def overlapping_pairs(
    box_N4: Float[ndarray, "N 4"],
) -> tuple[Int[ndarray, " P"], Int[ndarray, " P"]]:
    """Pairs of boxes x0, y0, x1, y1 that share more than an edge, each pair once."""
    order_N = np.argsort(box_N4[:, 0], kind="stable")
    box_N4 = box_N4[order_N]
    # Sorted by their left edges, the boxes that begin before one ends are the next few.
    end_N = np.searchsorted(box_N4[:, 0], box_N4[:, 2])
    count_N = np.maximum(end_N - np.arange(len(order_N)) - 1, 0)
    first_P = np.repeat(np.arange(len(order_N)), count_N)
    start_P = np.repeat(np.cumsum(count_N) - count_N, count_N)
    second_P = first_P + 1 + np.arange(len(first_P)) - start_P
    meet_P = (box_N4[first_P, 1] < box_N4[second_P, 3]) & (box_N4[second_P, 1] < box_N4[first_P, 3])
    return order_N[first_P[meet_P]], order_N[second_P[meet_P]]
