"""Scales of words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adaptive.textscale.words import Detections, short_sides


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4, 2.0])
def test_the_scale_is_the_short_side_however_the_word_lies(angle):
    corner_42 = np.array([[0, 0], [80, 0], [80, 20], [0, 20]], np.float32)
    turn_22 = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    quad_N42 = np.stack([corner_42, corner_42 @ turn_22.T + 100]).astype(np.float32)
    assert short_sides(quad_N42) == pytest.approx([20, 20], abs=1e-3)


def test_no_text_has_no_scales():
    assert len(Detections.none()) == 0
    assert short_sides(Detections.none().quad_N42).shape == (0,)
