"""Regions out of maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_stand_ins import Oracle, random_scene, scene

from adaptive.textscale.regions import MERGE, Regions, find_regions, known_regions
from adaptive.textscale.words import TextMaps, short_sides


def regions_of(words, width: int, height: int, side: int) -> Regions:
    zoom = side / width
    small = np.zeros((round(height * zoom), side, 3), np.uint8)
    maps = Oracle(words, width).maps(small)
    return find_regions(maps, width, height, ratio=(zoom, zoom))


@settings(max_examples=20)
@given(st.integers(0, 2000), st.sampled_from([320, 640]))
def test_every_word_lies_in_a_region_of_its_scale(seed, side):
    image_HW3, words = random_scene(seed)
    regions = regions_of(words, 640, 480, side)
    for quad_42, height in zip(words.quad_N42, short_sides(words.quad_N42), strict=True):
        low, high = quad_42.min(0) - 2, quad_42.max(0) + 2
        low, high = np.maximum(low, 0), np.minimum(high, (640, 480))
        box_R4 = regions.padded_R4
        holds_R = (box_R4[:, :2] <= low + 4).all(1) & (box_R4[:, 2:] >= high - 4).all(1)
        near_R = np.abs(np.log(regions.scale_R / height)) <= np.log(MERGE) + 1e-6
        assert (holds_R & near_R).any()
    assert regions.words_R.sum() >= len(words) * 0.6 and regions.coverage <= 1


def test_neighbours_of_one_size_are_one_region_and_others_are_not():
    _, alike = scene(640, 480, [(100, 100, 60, 20), (180, 100, 60, 20), (100, 130, 90, 24)])
    regions = regions_of(alike, 640, 480, 640)
    assert len(regions) == 1 and regions.words_R[0] == pytest.approx(3, abs=0.5)
    assert 20 < regions.scale_R[0] < 24
    _, unlike = scene(640, 480, [(100, 100, 60, 10), (180, 100, 160, 40)])
    assert sorted(regions_of(unlike, 640, 480, 640).scale_R.round()) == [10, 40]


def test_far_ends_of_a_slope_are_not_joined_at_the_price_of_what_lies_between():
    _, words = scene(640, 480, [(10, 10, 40, 20), (80, 60, 40, 20), (150, 110, 40, 20)])
    assert len(regions_of(words, 640, 480, 640)) == 3


def test_a_scale_is_a_median_that_some_wild_cells_do_not_move():
    probability_hw = np.zeros((60, 80), np.float32)
    probability_hw[20:24, 20:50] = 0.7
    log_scale_hw = np.zeros((60, 80), np.float32)
    log_scale_hw[20:24, 20:30] = 3.0
    maps = TextMaps(probability_hw, log_scale_hw, np.zeros_like(probability_hw))
    regions = find_regions(maps, 640, 480, ratio=(0.5, 0.5))
    assert regions.scale_R.tolist() == pytest.approx([64])
    assert regions.probability_R.tolist() == pytest.approx([0.7])
    assert regions.spread_R[0] > 0.5


def test_coverage_counts_words_that_are_too_small_to_be_sized():
    _, words = scene(1600, 960, [(100, 100, 60, 8), (400, 500, 300, 64)])
    regions = regions_of(words, 1600, 960, 320)
    assert regions.sized_R.tolist().count(True) == 1 and 0.2 < regions.coverage < 0.7
    assert "raise adapt.pass1_side from 320" in regions.warnings[0]


def test_text_that_is_too_small_in_the_image_itself_asks_for_another_image():
    probability_hw = np.full((60, 80), 0.0, np.float32)
    probability_hw[20:22, 20:50] = 0.7
    log_scale_hw = np.full((60, 80), np.log(2 / 32), np.float32)
    maps = TextMaps(probability_hw, log_scale_hw, np.zeros_like(probability_hw))
    regions = find_regions(maps, 320, 240, ratio=(1.0, 1.0))
    assert regions.coverage == 0 and "give the image at a higher res" in regions.warnings[0]


def test_an_empty_map_has_no_regions_and_misses_nothing():
    empty = np.zeros((10, 10), np.float32)
    regions = find_regions(TextMaps(empty, empty, empty), 80, 80, ratio=(0.5, 0.5))
    assert len(regions) == 0 and regions.coverage == 1 and not regions.warnings


def test_a_perfect_prior_knows_words_that_count():
    _, words = random_scene(1)
    words.care_N[0] = False
    regions = known_regions(words, 640, 480)
    assert regions.words_R.sum() == len(words) - 1 and regions.sized_R.all()
