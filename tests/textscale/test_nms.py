"""Suppression of polygons, against shapely."""

from __future__ import annotations

import math

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st

from adaptive.textscale.nms import overlapping_pairs, suppress


def turned(x: float, y: float, w: float, h: float, angle: float) -> np.ndarray:
    corner_42 = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    turn_22 = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (corner_42 @ turn_22 + (x, y)).astype(np.float32)


BOX = st.builds(
    turned,
    st.floats(0, 60),
    st.floats(0, 60),
    st.floats(5, 40),
    st.floats(5, 20),
    st.floats(0, 3.1),
)


@given(st.lists(BOX, max_size=12), st.integers(0, 2**31))
def test_it_is_the_greedy_rule_on_exact_polygons(quads, seed):
    quad_N42 = np.array(quads, np.float32).reshape(-1, 4, 2)
    rank_N = np.random.default_rng(seed).permutation(len(quads)).astype(float)
    shapes = [shapely.Polygon(quad) for quad in quads]
    kept: list[int] = []
    for i in np.argsort(-rank_N):
        shared = [shapes[i].intersection(shapes[j]).area for j in kept]
        both = [shapes[i].area + shapes[j].area for j in kept]
        least = [min(shapes[i].area, shapes[j].area) for j in kept]
        rivals = [
            s > 0.3 * (b - s) or s > 0.7 * m for s, b, m in zip(shared, both, least, strict=True)
        ]
        if not any(rivals):
            kept.append(int(i))
    assert suppress(quad_N42, rank_N).tolist() == sorted(kept)


def test_neighbours_on_a_slope_share_boxes_but_no_pixel():
    quad_N42 = np.stack([turned(50, 50, 80, 10, 0.7), turned(42, 60, 80, 10, 0.7)])
    first, second = overlapping_pairs(np.concatenate([quad_N42.min(1), quad_N42.max(1)], 1) * 1.0)
    assert len(first) == len(second) == 1
    assert suppress(quad_N42, np.array([0.9, 0.8])).tolist() == [0, 1]


def test_a_part_goes_before_the_whole_where_it_ranks_lower():
    quad_N42 = np.stack([turned(50, 50, 80, 20, 0), turned(30, 50, 30, 18, 0)])
    assert suppress(quad_N42, np.array([0.9, 0.8])).tolist() == [0]
    assert suppress(quad_N42, np.array([0.8, 0.9])).tolist() == [1]
