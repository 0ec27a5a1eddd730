"""Views, canvases and colours: pixels and words stay together."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text import Scenes, make_words, rectangle

from adaptive.textscale.train.colours import recolour
from adaptive.textscale.train.packed import draw_canvas, joined
from adaptive.textscale.train.settings import SampleConfig
from adaptive.textscale.train.views import apply, draw_map, show, within
from adaptive.textscale.words import short_sides

CONFIG = SampleConfig(side=128)
seeds = st.integers(0, 10**6)


def painted(quad_42: np.ndarray, height: int, width: int) -> np.ndarray:
    """A white word on black."""
    image_HW3 = np.zeros((height, width, 3), np.uint8)
    cv2.fillPoly(image_HW3, [np.rint((quad_42 - 0.5) * 16).astype(np.int32)], (255,) * 3, shift=4)
    return image_HW3


@given(seed=seeds)
@settings(max_examples=25)
def test_words_are_where_their_pixels_are(seed):
    rng = np.random.default_rng(seed)
    quad_42 = rectangle(150, 120, rng.uniform(40, 90), rng.uniform(24, 50), rng.uniform(0, 3))
    image_HW3, words = painted(quad_42, 240, 300), make_words(quad_42)
    view_HW3, seen = show(image_HW3, words, draw_map(rng, words, 240, 300, CONFIG), 128)
    assert view_HW3.shape == (128, 128, 3)
    white_HW = view_HW3[..., 0] > 127
    expected_HW = np.zeros((128, 128, 3), np.uint8)
    if len(seen) and seen.care_N[0]:
        expected_HW = painted(seen.quad_N42[0], 128, 128)
        differ = (white_HW != (expected_HW[..., 0] > 127)).sum()
        perimeter = np.linalg.norm(np.diff(seen.quad_N42[0], axis=0), axis=1).sum()
        assert differ < 1.5 * perimeter + 8
    elif not len(seen):
        assert white_HW.sum() < 4


@given(seed=seeds)
@settings(max_examples=25)
def test_sizes_cover_the_range(seed):
    """The word that a view is of has a size in the range, up to the stretch."""
    config = replace(CONFIG, anywhere=0.0, zoom=(0.01, 100.0), scale=(8.0, 64.0))
    words = make_words(rectangle(100, 100, 60, 20, 0.3))
    map_23 = draw_map(np.random.default_rng(seed), words, 200, 200, config)
    size = float(short_sides(apply(map_23, words.quad_N42))[0])
    assert 8 / config.stretch <= size <= 64 * config.stretch


@given(seed=seeds, zoom=st.floats(0.3, 3.0))
@settings(max_examples=25)
def test_a_view_shows_as_much_of_the_image_as_it_can(seed, zoom):
    config = replace(CONFIG, anywhere=1.0, zoom=(zoom, zoom), rotate=0.0, turn=0.0, stretch=1.0)
    map_23 = draw_map(np.random.default_rng(seed), make_words(), 200, 150, config)
    low_2, high_2 = apply(map_23, rectangle(75, 100, 150, 200)[None])[0][[0, 2]]
    for low, high in zip(low_2, high_2, strict=True):
        if high - low >= 128:
            assert low <= 1e-3 and high >= 128 - 1e-3
        else:
            assert low >= -1e-3 and high <= 128 + 1e-3


def test_words_that_are_drawn_are_those_that_are_asked_for():
    words = make_words(rectangle(40, 40, 30, 10), rectangle(160, 160, 30, 10))
    config = replace(CONFIG, anywhere=0.0, scale=(30.0, 30.0), zoom=(3.0, 3.0))
    for seed in range(8):
        rng = np.random.default_rng(seed)
        map_23 = draw_map(rng, words, 200, 200, config, np.array([0.0, 1.0]))
        centre_2 = apply(map_23, words.quad_N42)[1].mean(0)
        assert (centre_2 > 0).all() and (centre_2 < 128).all()


def test_cut_words_are_not_cared_about():
    words = make_words(
        rectangle(50, 50, 40, 20),
        rectangle(100, 50, 40, 20),
        rectangle(300, 50, 40, 20),
        rectangle(50, 98, 40, 20, 0.0),
        rectangle(50, 20, 42, 20, 0.0),
    )
    seen = within(words, 29.5, 0, 100, 100)
    assert len(seen) == len(seen.texts) == 4
    assert seen.care_N.tolist() == [True, False, False, True]
    np.testing.assert_allclose(seen.quad_N42[1].min(0), [80, 40], atol=0.1)
    np.testing.assert_allclose(seen.quad_N42[1].max(0), [100, 60], atol=0.1)
    np.testing.assert_array_equal(seen.quad_N42[0], words.quad_N42[0])


@given(seed=seeds)
@settings(max_examples=8)
def test_canvases_hold_words_at_about_canonical_scale(seed):
    rng = np.random.default_rng(seed)
    scenes = iter(Scenes(30, seed))
    canvas_HW3, words = draw_canvas(rng, lambda: next(scenes)[1:], replace(CONFIG, side=256))
    assert canvas_HW3.shape == (256, 256, 3) and len(words) > 0
    # Scenes have words of 14 to 28 pixels: a chip's neighbours are up to twice as large as its own.
    scale_N = short_sides(words.quad_N42[words.care_N])
    assert (scale_N > 32 / 1.6 / 2 - 1.5).all() and (scale_N < 32 * 1.6 * 2 + 1.5).all()
    assert words.quad_N42.min() > -12 and words.quad_N42.max() < 268
    for quad_42 in words.quad_N42[words.care_N]:  # light boxes on grey, by more than half
        inside_HW = painted(quad_42, 256, 256)[..., 0] > 0
        assert np.median(canvas_HW3[inside_HW].mean(1)) > 150


def test_an_image_without_words_makes_a_bare_canvas():
    bare = (np.zeros((50, 60, 3), np.uint8), make_words())
    canvas_HW3, words = draw_canvas(np.random.default_rng(0), lambda: bare, CONFIG)
    assert canvas_HW3.shape == (128, 128, 3) and not len(words)
    assert len(joined([make_words(rectangle(0, 0, 9, 9)), make_words()])) == 1


def test_light_changes_and_shapes_stay():
    image_HW3 = Scenes(1)[0][1]
    config = replace(CONFIG, blur=1.0, noise=1.0)
    one, same, other = (
        recolour(np.random.default_rng(seed), image_HW3, config) for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert one.shape == image_HW3.shape and one.dtype == np.uint8
    off = replace(CONFIG, blur=0.0, noise=0.0, colour=0.0)
    assert np.array_equal(recolour(np.random.default_rng(0), image_HW3, off), image_HW3)
    edges = [np.abs(np.diff(x[..., 0].astype(int), axis=1)) for x in (image_HW3, one)]
    assert math.isfinite(float(np.corrcoef(edges[0].ravel(), edges[1].ravel())[0, 1]))
    assert np.corrcoef(edges[0].ravel(), edges[1].ravel())[0, 1] > 0.3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"side": 100}, "sample.side=100 must be a multiple of 32"),
        ({"scale": (9.0, 3.0)}, r"sample.scale=\[9.0, 3.0\] must be two numbers"),
        ({"stretch": 0.5}, "sample.stretch=0.5 must be at least 1"),
        ({"packed": 1.5}, "sample.packed=1.5 must lie in 0 to 1"),
        ({"colour": 1.0}, "sample.colour=1.0 must lie in 0 to 1, 1 excluded"),
    ],
)
def test_mistakes_are_told(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(CONFIG, **changes).validate()
