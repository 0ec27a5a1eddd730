"""Other ways to spend pixels."""

from __future__ import annotations

import pytest
from text_stand_ins import Oracle, Reader, random_scene, scene

from adaptive.textscale.baselines import BASELINES
from adaptive.textscale.evaluate.icdar import match, score
from adaptive.textscale.settings import AdaptConfig

SETTINGS = {
    "single": {"side": 1920},
    "tiling": {"tile": 320, "overlap": 0.5, "zoom": 2.0},
    "fixed_zoom": {"zoom": 3.0},
    "three_zooms": {},
}


def build(name, words, width=640, **settings):
    reader = Reader(most=400)
    mapper = Oracle(words, width, reader)
    config = AdaptConfig(pass1_side=width)
    return BASELINES[name](reader, mapper, config, **{**SETTINGS[name], **settings}), reader, mapper


@pytest.mark.parametrize("name", BASELINES)
def test_pixels_are_those_of_all_inputs_and_small_words_are_found(name):
    image_HW3, words = scene(640, 480, [(50, 60, 40, 12), (300, 200, 50, 14), (500, 400, 30, 10)])
    baseline, reader, mapper = build(name, words)
    counted = baseline(image_HW3)
    assert counted.pixels == reader.pixels + mapper.pixels
    assert score([match(words, counted.detections)]).hmean == 1


@pytest.mark.parametrize("name", BASELINES)
def test_an_image_without_text_has_none(name):
    image_HW3, words = scene(96, 64, [])
    assert len(build(name, words, 96)[0](image_HW3).detections) == 0


def test_tiles_see_every_word_that_fits_into_an_overlap_once():
    image_HW3, words = random_scene(3, words=20)
    counted = build("tiling", words, zoom=3.0, tile=640)[0](image_HW3)
    found = match(words, counted.detections)
    small = words.quad_N42[:, 1, 0] - words.quad_N42[:, 0, 0] < 100
    assert found.found_N[small].all() and score([found]).precision == 1
