"""Pixels and corners go the same way."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive.textscale.data.homography import random_view, scale, shift, transform, warp


@pytest.mark.parametrize("fine", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_a_drawn_box_lands_on_its_corners(fine, seed):
    """Area and centre of the warped ink against those of the transformed quad."""
    sheet_hw = np.zeros((60 * fine, 160 * fine), np.uint8)
    sheet_hw[10 * fine : 40 * fine, 20 * fine : 130 * fine] = 255
    quad_42 = fine * np.array([(20, 10), (130, 10), (130, 40), (20, 40)], float)
    view_33 = random_view(np.random.default_rng(seed), 160 * fine, 60 * fine)
    view_33 = view_33 @ shift(-80 * fine, -30 * fine)
    view_33 = shift(150.3, 150.7) @ scale(1 / fine, 1 / fine) @ view_33
    image_HW = warp(sheet_hw, view_33, 300, 300, fine) / 255
    x_4, y_4 = transform(view_33, quad_42).T
    cross_4 = x_4 * np.roll(y_4, -1) - np.roll(x_4, -1) * y_4
    area = cross_4.sum() / 2
    centre = [((c + np.roll(c, -1)) * cross_4).sum() / (6 * area) for c in (x_4, y_4)]
    y_HW, x_HW = np.mgrid[:300, :300] + 0.5  # middles of pixels
    assert image_HW.sum() == pytest.approx(area, rel=0.01)
    drawn = [(c_HW * image_HW).sum() / image_HW.sum() for c_HW in (x_HW, y_HW)]
    assert drawn == pytest.approx(centre, abs=0.06)


def test_views_neither_mirror_nor_turn_text_over():
    rng = np.random.default_rng(0)
    for _ in range(200):
        view_33 = random_view(rng, 200, 40)
        x_4, y_4 = transform(
            view_33, np.array([(-100, -20), (100, -20), (100, 20), (-100, 20.0)])
        ).T
        turns_4 = (np.roll(x_4, -1) - x_4) * (np.roll(y_4, -2) - np.roll(y_4, -1))
        turns_4 -= (np.roll(y_4, -1) - y_4) * (np.roll(x_4, -2) - np.roll(x_4, -1))
        assert (turns_4 > 0).all()  # convex and clockwise on the screen
