"""Cores of words, and words out of cores."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny_text import make_words, rectangle

from adaptive.textscale.cores import (
    SHRINK,
    boxes_by_scale,
    grow_distances,
    offset,
    shrink_distances,
)
from adaptive.textscale.postprocess import boxes_of_map
from adaptive.textscale.train.targets import targets
from adaptive.textscale.words import Detections, TextMaps, short_sides

angles = st.floats(0, 2 * math.pi)


@given(width=st.floats(10, 200), height=st.floats(10, 200), angle=angles)
def test_the_core_of_a_rectangle_is_in_closed_form(width, height, angle):
    quad_142 = rectangle(0, 0, width, height, angle)[None]
    scale_1 = short_sides(quad_142)
    inset_1 = shrink_distances(quad_142, scale_1)
    d = width * height * (1 - SHRINK**2) / (2 * (width + height))
    expected = min(d, (min(width, height) - 4) / 2)
    assert inset_1[0] == pytest.approx(expected, rel=1e-3)
    core = rectangle(0, 0, width - 2 * expected, height - 2 * expected, angle)
    np.testing.assert_allclose(offset(quad_142, inset_1)[0], core, atol=1e-2)


@given(seed=st.integers(0, 10**6))
def test_sides_move_in_parallel(seed):
    """Against shapely's buffer with mitred corners, of any convex quad."""
    rng = np.random.default_rng(seed)
    angle_4 = np.sort(rng.uniform(0, 2 * math.pi, 4))
    quad_142 = np.stack([np.cos(angle_4), np.sin(angle_4)], 1)[None].astype(np.float32) * 50
    shape = shapely.Polygon(quad_142[0])
    edge_42 = np.diff(quad_142[0], axis=0, append=quad_142[0, :1])
    # Else a corner is so sharp that a side vanishes.
    assume(np.linalg.norm(edge_42, axis=1).min() > 20 and shape.area > 1500)
    distance = 0.2 * shape.area / shape.length
    for by in (distance, -distance):
        moved = shapely.Polygon(offset(quad_142, np.array([by]))[0])
        expected = shape.buffer(-by, join_style="mitre", mitre_limit=50)
        assert moved.symmetric_difference(expected).area < 0.02 * expected.area


@given(width=st.floats(12, 300), height=st.floats(12, 300))
def test_growing_undoes_shrinking(width, height):
    quad_142 = rectangle(0, 0, width, height)[None]
    inset_1 = shrink_distances(quad_142, short_sides(quad_142))
    assume(inset_1[0] < (min(width, height) - 4) / 2 - 1e-3)  # not shrunk less
    side_12 = np.array([[width, height]]) - 2 * inset_1[:, None]
    np.testing.assert_allclose(grow_distances(side_12), inset_1, rtol=1e-3)


def perfect(words, side: int = 256) -> TextMaps:
    """What a network without a flaw says: as it cannot know where cores end, all cells around a
    word have its scale."""
    found = targets(words, side, side)
    z_hw = np.full_like(found.log_scale_hw, math.log(short_sides(words.quad_N42)[0] / 32))
    return TextMaps(found.text_hw, z_hw, found.border_hw)


def overlap(found: Detections, quad_42: np.ndarray) -> float:
    """IoU of the only box and a word."""
    assert len(found) == 1
    one, other = shapely.Polygon(found.quad_N42[0]), shapely.Polygon(quad_42)
    return one.intersection(other).area / one.union(other).area


def boxes(maps: TextMaps, **changes) -> Detections:
    given = {"threshold": 0.3, "box_threshold": 0.3, "grow": 1.0, "min_side": 3.0}
    return boxes_by_scale(maps, **(given | changes))


@given(height=st.floats(8, 60), aspect=st.floats(2, 4), angle=angles)
@settings(max_examples=12)
def test_perfect_maps_give_the_words_back(height, aspect, angle):
    """On average over places by far; the smallest words, at the worst of them, as a match needs."""
    overlaps = []
    for x, y in 126 + np.arange(6)[:, None] * (0.7549, 0.5698) % 1 * 4:
        quad_42 = rectangle(x, y, aspect * height, height, angle)
        overlaps.append(overlap(boxes(perfect(make_words(quad_42))), quad_42))
    assert np.mean(overlaps) > (0.7 if height < 16 else 0.88)
    assert min(overlaps) > (0.5 if height < 16 else 0.8)


def test_small_words_are_better_than_by_area_over_perimeter():
    gains = []
    for shift in np.arange(0, 4, 0.5):
        quad_42 = rectangle(128, 128 + shift, 40, 12, 0.2)
        maps = perfect(make_words(quad_42))
        by_area = boxes_of_map(maps.probability_hw, unclip_ratio=1.5)
        gains.append(overlap(boxes(maps), quad_42) - overlap(by_area, quad_42))
    assert np.mean(gains) > 0.1


def test_a_scale_that_cannot_be_is_not_believed():
    quad_42 = rectangle(128, 128, 80, 30)
    maps = perfect(make_words(quad_42))
    wild = replace(maps, log_scale_hw=maps.log_scale_hw + 3)
    assert short_sides(boxes(wild).quad_N42)[0] < 1.5 * 30
    tiny = replace(maps, log_scale_hw=maps.log_scale_hw - 3)
    assert short_sides(boxes(tiny).quad_N42)[0] > 5


def test_thresholds_and_growth_act():
    quad_42 = rectangle(128, 128, 80, 30)
    maps = perfect(make_words(quad_42))
    faint = replace(maps, probability_hw=0.4 * maps.probability_hw)
    assert len(boxes(faint)) == 1 and not len(boxes(faint, box_threshold=0.6))
    assert not len(boxes(faint, threshold=0.5))
    assert not len(boxes(maps, min_side=40.0)) and len(boxes(maps, min_side=25.0)) == 1
    cores, words = (short_sides(boxes(maps, grow=by).quad_N42)[0] for by in (0.0, 1.0))
    assert cores < 20 and words == pytest.approx(30, abs=1)


def test_no_text_has_no_boxes():
    assert len(boxes(perfect(make_words(rectangle(-50, -50, 20, 10))))) == 0
