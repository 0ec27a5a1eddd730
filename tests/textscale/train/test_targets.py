"""Targets by their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text import make_words, rectangle

from adaptive.textscale.cores import clockwise, convex, shrink_distances
from adaptive.textscale.train.targets import targets
from adaptive.textscale.words import short_sides

angles = st.floats(0, 2 * math.pi)


@given(width=st.floats(24, 150), height=st.floats(8, 60), angle=angles)
@settings(max_examples=20)
def test_the_core_covers_its_area_on_average_over_places(width, height, angle):
    """One place may be off by half a pixel along each side, and so may places along one line."""
    quad_42 = rectangle(100, 100, width, height, angle)
    areas = []
    for place_2 in np.arange(12)[:, None] * (0.7549, 0.5698) % 1 * 4:  # spread over a cell
        found = targets(make_words(quad_42 + place_2), 208, 208)
        areas.append(found.text_hw.sum() * 16)
        assert found.care_hw.all() and found.share_hw.sum() == pytest.approx(1, abs=1e-4)
        z = math.log(min(width, height) / 32)
        np.testing.assert_allclose(found.log_scale_hw[found.share_hw > 0], z, atol=1e-3)
    inset = float(shrink_distances(quad_42[None], short_sides(quad_42[None]))[0])
    expected = (width - 2 * inset) * (height - 2 * inset)
    assert np.mean(areas) == pytest.approx(expected, abs=0.15 * 2 * (width + height) + 4)


def test_a_core_that_fills_no_cell_by_half_is_still_learned():
    """Across the corner of four cells."""
    found = targets(make_words(rectangle(32, 32, 5, 4)), 64, 64)
    assert found.text_hw.max() < 0.5 and found.share_hw.sum() == pytest.approx(1)


@given(scale=st.sampled_from([2, 3, 4]), angle=angles)
def test_a_scene_enlarged_has_the_same_targets_but_for_their_scale(scale, angle):
    """Cell by cell, of words large enough not to be shrunk less."""
    quads = [rectangle(40, 40, 50, 24, angle), rectangle(90, 92, 40, 30, -angle)]
    small = targets(make_words(*quads), 128, 128)
    large = targets(make_words(*(scale * quad for quad in quads)), 128 * scale, 128 * scale)
    blocks = large.text_hw.reshape(32, scale, 32, scale).mean((1, 3))
    assert np.abs(blocks - small.text_hw).mean() < 0.01
    both_hw = (small.share_hw > 0) & (large.share_hw[scale // 2 :: scale, scale // 2 :: scale] > 0)
    difference = (
        large.log_scale_hw[scale // 2 :: scale, scale // 2 :: scale] - small.log_scale_hw
    )[both_hw]
    np.testing.assert_allclose(difference, math.log(scale), atol=1e-3)


def test_a_quarter_turn_turns_the_targets():
    quads = [rectangle(50.3, 60.7, 60, 20, 0.3), rectangle(100, 20, 30, 11, 1.0)]
    turned = [np.stack([128 - quad[:, 1], quad[:, 0]], 1) for quad in quads]
    here, there = targets(make_words(*quads), 128, 128), targets(make_words(*turned), 128, 128)
    for name in ("text_hw", "border_hw"):
        expected_hw = np.rot90(getattr(here, name), -1)
        assert np.abs(getattr(there, name) - expected_hw).sum() < 0.05 * expected_hw.sum()


def test_the_band_lies_on_the_outline():
    quad_42 = rectangle(64, 64, 80, 40)
    border_hw = targets(make_words(quad_42), 128, 128).border_hw
    assert border_hw[16, 6] == 1 and border_hw[11, 16] == 1  # on the left side and on the top
    assert border_hw[16, 16] == 0 and border_hw[16, 0] == 0


def test_what_is_not_judged():
    """Don't-care words, tiny ones and those that are not convex are neither text nor background."""
    crossed = np.array([[20, 90], [60, 110], [60, 90], [20, 110]], np.float32)
    quads = [
        rectangle(30, 30, 40, 20),
        rectangle(90, 30, 20, 3),
        crossed,
        rectangle(90, 90, 40, 20),
    ]
    found = targets(make_words(*quads, care=[False, True, True, True]), 128, 128)
    assert found.care_hw[7, 7] == 0 and found.care_hw[7, 22] == 0 and found.care_hw[24, 7] == 0
    assert found.care_hw[22, 22] == 1 and found.care_hw[0, 0] == 1
    assert found.text_hw[:12].sum() == 0 and found.share_hw.sum() == pytest.approx(1, abs=1e-5)


def test_a_word_in_a_region_that_is_not_judged_is_judged():
    quads = [rectangle(64, 64, 100, 100), rectangle(64, 64, 50, 24)]
    found = targets(make_words(*quads, care=[False, True]), 128, 128)
    assert found.care_hw[16, 16] == 1 and found.care_hw[16, 6] == 0


def test_a_small_word_on_a_large_one_keeps_its_scale():
    quads = [rectangle(64, 64, 40, 12), rectangle(64, 64, 120, 100)]
    found = targets(make_words(*quads), 128, 128)
    assert found.log_scale_hw[16, 16] == pytest.approx(math.log(12 / 32), abs=1e-3)
    assert found.share_hw.sum() == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("height", [4.5, 6, 8])
def test_a_small_word_has_a_core_wherever_it_lies(height):
    for shift in np.arange(0, 4, 0.5):
        found = targets(make_words(rectangle(64, 64 + shift, 60, height)), 128, 128)
        assert found.text_hw.max() >= 0.5 and found.share_hw.sum() == pytest.approx(1, abs=1e-4)


def test_corners_may_run_either_way():
    quad_42 = rectangle(64, 64, 80, 40, 0.4)
    both = np.stack([quad_42, quad_42[::-1]])
    assert convex(clockwise(both)).all()
    one, other = (targets(make_words(quad), 128, 128) for quad in both)
    assert np.abs(one.text_hw - other.text_hw).sum() < 1.0


def test_an_image_without_words_is_all_background():
    found = targets(make_words(), 64, 64)
    assert found.stacked().shape == (5, 16, 16)
    assert found.care_hw.all() and not found.text_hw.any() and not found.share_hw.any()
