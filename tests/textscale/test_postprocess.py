"""Boxes out of probability maps."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive.textscale.postprocess import boxes_of_map
from adaptive.textscale.words import short_sides

SIDE = 160


def map_of(quads: list[np.ndarray], value: float = 0.9) -> np.ndarray:
    """Cells whose centres lie inside a quad, by the sign of cross products: exact."""
    y_hw, x_hw = np.mgrid[:SIDE, :SIDE] + 0.5
    out_hw = np.zeros((SIDE, SIDE), np.float32)
    for quad_42 in quads:
        inside_hw = np.ones((SIDE, SIDE), bool)
        for (ax, ay), (bx, by) in zip(quad_42, np.roll(quad_42, -1, 0), strict=True):
            inside_hw &= (bx - ax) * (y_hw - ay) - (by - ay) * (x_hw - ax) >= 0
        out_hw[inside_hw] = value
    return out_hw


def rectangle(x: float, y: float, w: float, h: float, angle: float) -> np.ndarray:
    corner_42 = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    turn_22 = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return corner_42 @ turn_22 + (x, y)


@settings(max_examples=40)
@given(
    st.floats(70, 90),
    st.floats(70, 90),
    st.floats(12, 60),
    st.floats(4, 12),
    st.floats(0, math.pi),
)
def test_a_rectangle_comes_back_within_about_a_cell(x, y, w, h, angle):
    quad_42 = rectangle(x, y, w, h, angle)
    found = boxes_of_map(map_of([quad_42]), unclip_ratio=0, stride=1, min_side=1)
    assert len(found) == 1
    sides = sorted(cv2.minAreaRect(found.quad_N42[0])[1])
    assert sides == pytest.approx([min(w, h), max(w, h)], abs=1.2)
    assert found.quad_N42[0].mean(0) == pytest.approx([x, y], abs=0.8)


def test_growing_undoes_the_shrinking_of_labels():
    # DB shrinks by d = area (1 - 0.4^2) / perimeter; with r = 1.5 a 40 x 10 core grows by 6 a side.
    found = boxes_of_map(map_of([rectangle(80, 80, 40, 10, 0)]), unclip_ratio=1.5, stride=4)
    assert found.quad_N42[0] == pytest.approx(rectangle(80, 80, 52, 22, 0) * 4, abs=1e-2)
    assert found.score_N == pytest.approx([0.9])
    assert short_sides(found.quad_N42) == pytest.approx([88])


def test_corners_run_clockwise_from_the_top_left():
    (quad_42,) = boxes_of_map(map_of([rectangle(80, 80, 10, 40, 0.0)])).quad_N42
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = quad_42
    assert ax == dx < bx == cx and ay == by < cy == dy


def test_faint_words_and_specks_are_left_out_and_text_in_a_frame_is_kept():
    probability_hw = map_of([rectangle(40, 30, 30, 8, 0)], 0.4)
    probability_hw[100:101, 100:101] = 1.0
    cv2.rectangle(probability_hw, (60, 60), (150, 150), 0.6, 2)
    probability_hw[120:130, 80:110] = 0.8
    found = boxes_of_map(probability_hw, box_threshold=0.5, min_side=3, stride=1)
    assert found.score_N == pytest.approx([0.8])


def test_an_empty_map_has_no_boxes():
    assert len(boxes_of_map(np.zeros((8, 8), np.float32))) == 0


def test_noise_costs_a_bounded_time():
    probability_hw = np.zeros((400, 400), np.float32)
    probability_hw[::2, ::2] = 1.0
    assert len(boxes_of_map(probability_hw, stride=8, min_side=1, max_candidates=50)) == 50
