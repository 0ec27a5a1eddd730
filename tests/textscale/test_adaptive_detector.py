"""Both passes together, over stand-ins that know the truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_stand_ins import Oracle, Reader, random_scene, scene

from adaptive.core.errors import UserError
from adaptive.textscale.adaptive_detector import AdaptiveDetector
from adaptive.textscale.evaluate.icdar import match, score
from adaptive.textscale.first_look import copy_size, pass1_side
from adaptive.textscale.latency import LatencyModel
from adaptive.textscale.recall import RecallCurve
from adaptive.textscale.settings import AdaptConfig

CURVE = RecallCurve(top=0.95, small=14, rise=8, large=120, fall=8)


def adaptive(words, width, reader=None, budget=None, **config):
    reader = reader or Reader()
    # Sides that are multiples of the stride tell the oracle its zoom; a share would change them.
    config = AdaptConfig(**{"pass1_side": 320, "pass1_share": 0.01, **config})
    return AdaptiveDetector(
        reader, Oracle(words, width, reader), budget, recall=CURVE, config=config
    )


def test_small_words_are_found_that_no_copy_shows():
    image_HW3, words = random_scene(1)
    assert score([match(words, Reader()(image_HW3))]).recall < 0.8
    result = adaptive(words, 640).inspect([image_HW3])
    found = score([match(words, result.detections[0])])
    assert found.recall == found.precision == 1
    assert result.megapixels < 640 * 480 / 1e6


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(10_000, 400_000), st.sampled_from([8, 16, 32]))
def test_a_budget_is_a_promise(seed, pixels, stride):
    image_HW3, words = random_scene(seed)
    detector = adaptive(
        words, 640, budget={"pixels": pixels}, stride=stride, pass1_side=640, pass1_share=0.5
    )
    result = detector.inspect([image_HW3])
    seen = detector.mapper.pixels + detector.detector.function.pixels
    assert seen == result.pass1_pixels + result.pass2_pixels <= pixels
    assert result.allocation is None or result.allocation.status == "optimal"


@settings(max_examples=8)
@given(st.integers(0, 1000), st.integers(60_000, 300_000))
def test_images_share_a_budget_and_canvases(seed, pixels):
    scenes = [random_scene(seed + i, words=3 + 4 * i) for i in range(2)]
    reader = Reader()
    oracle = Oracle(scenes[0][1], 640, reader)
    detector = AdaptiveDetector(
        reader,
        oracle,
        {"pixels": pixels},
        recall=CURVE,
        config=AdaptConfig(pass1_side=256, pass1_share=0.01),
    )
    images = [image_HW3 for image_HW3, _ in scenes]
    plain_maps, turn = oracle.maps, iter(words for _, words in scenes)

    def maps(image_HW3):
        oracle.words = next(turn)
        return plain_maps(image_HW3)

    oracle.maps = maps
    result = detector.inspect(images)
    assert result.pass1_pixels + result.pass2_pixels <= 2 * pixels
    for (_, words), found in zip(scenes, result.detections, strict=True):
        assert score([match(words, found)]).precision == 1 or not len(found)


def test_more_budget_finds_more():
    recalls = []
    for pixels in (40_000, 80_000, 250_000):
        matches = []
        for seed in range(6):
            image_HW3, words = random_scene(seed)
            found = adaptive(words, 640, budget={"pixels": pixels}, pass1_side=192)(image_HW3)
            matches.append(match(words, found))
        recalls.append(score(matches).recall)
    assert recalls[0] < recalls[1] < recalls[2]


def test_a_region_near_the_canonical_scale_keeps_its_boxes():
    image_HW3, words = scene(640, 480, [(100, 100, 120, 32), (300, 300, 40, 9)])
    result = adaptive(words, 640, pass1_side=640).inspect([image_HW3])
    assert sorted(label[0] for label in result.allocation.labels()) == ["k", "x"]
    assert result.detections[0].score_N.tolist() == pytest.approx([0.8, 0.9])


def test_what_was_looked_at_again_is_known_of_each_image(tmp_path):
    (small_HW3, words), (blank_HW3, _) = scene(640, 480, [(100, 100, 40, 9)]), scene(640, 480, [])
    reader = Reader()
    detector = AdaptiveDetector(reader, Oracle(words, 640, reader))
    result = detector.inspect([small_HW3])
    assert [part_R.tolist() for part_R in result.again] == [[True]]
    assert [len(part_R) for part_R in detector.inspect([blank_HW3, small_HW3]).again] == [
        len(regions) for regions in detector.inspect([blank_HW3, small_HW3]).regions
    ]
    with pytest.raises(UserError, match="there are no images: give at least one"):
        detector.detect_many([])


def test_without_text_nothing_more_is_spent():
    image_HW3, words = scene(640, 480, [])
    result = adaptive(words, 640, budget={"pixels": 300_000}).inspect([image_HW3])
    assert len(result.detections[0]) == 0 and result.pass2_pixels == 0
    assert result.allocation is None and not result.warnings


def test_a_page_full_of_text_is_looked_at_as_a_whole():
    boxes = [(x, y, 60, 18) for y in range(10, 450, 28) for x in range(8, 560, 68)]
    image_HW3, words = scene(640, 480, boxes)
    detector = adaptive(words, 640, budget={"pixels": 300_000}, pass1_side=320, pass1_share=0.1)
    result = detector.inspect([image_HW3])
    assert result.plan.zoom_I[0] > 0 and len(result.plan.chips) == 1 and result.again[0].all()
    assert result.pass1_pixels + result.pass2_pixels <= 300_000


def test_text_too_small_to_size_is_told():
    image_HW3, words = scene(1600, 480, [(100, 100, 60, 8), (300, 300, 70, 9)])
    result = adaptive(words, 1600, pass1_side=320).inspect([image_HW3])
    (sentence,) = result.warnings
    assert "100% of the text" in sentence and "adapt.pass1_side from 320 to about 1152" in sentence


def test_a_latency_budget_becomes_pixels_by_the_model():
    image_HW3, words = random_scene(3)
    reader = Reader()
    model = LatencyModel(call=0.001, pixel=1e-6)
    spent = []
    for latency in ("80ms", "200ms"):
        detector = AdaptiveDetector(
            reader,
            Oracle(words, 640, reader),
            {"latency": latency},
            recall=CURVE,
            config=AdaptConfig(pass1_side=192, pass1_share=0.1),
            latency=model,
            pass1_latency=model,
        )
        spent.append(detector.inspect([image_HW3]).pass2_pixels)
    assert 0 < spent[0] < spent[1] <= 200_000


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (33, 31)])
def test_any_size_of_image_passes(shape):
    image_HW3, words = scene(shape[1], shape[0], [])
    for budget in (None, {"pixels": 2_000_000}):
        assert len(adaptive(words, shape[1], budget=budget)(image_HW3)) == 0


def test_functions_that_return_pairs_are_wrapped():
    image_HW3, words = random_scene(5)
    reader = Reader()
    detector = AdaptiveDetector(
        lambda image: list(zip(*vars(reader(image)).values(), strict=True)),
        Oracle(words, 640, reader),
        recall=CURVE,
        config=AdaptConfig(pass1_side=320),
    )
    assert score([match(words, detector(image_HW3))]).recall == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"budget": {"memory": 3}}, "budget.memory is not spent on images"),
        ({"budget": {"pixels": "many"}}, "budget.pixels='many' is not a quantity"),
        ({"prior": None}, "prior is needed"),
        ({"detector": 3}, "detector is a int"),
        ({"detector": lambda image: [1]}, "pairs of a quad"),
        ({"recall": "nowhere.json"}, "recall=nowhere.json is not a recall curve"),
        ({"config": AdaptConfig(heights=[])}, "adapt.heights="),
    ],
)
def test_mistakes_are_told(change, words):
    image_HW3, truth = random_scene(0)
    settings = {"detector": Reader(), "prior": Oracle(truth, 640)} | change
    with pytest.raises(UserError, match=words):
        AdaptiveDetector(**settings)(image_HW3)


@pytest.mark.parametrize("image", [None, np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4))])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(UserError, match="give RGB as uint8"):
        adaptive(random_scene(0)[1], 640)(image)


def test_a_budget_below_one_input_is_refused():
    image_HW3, words = random_scene(0)
    with pytest.raises(UserError, match="budget.pixels leaves 900 pixels"):
        adaptive(words, 640, budget={"pixels": 900})(image_HW3)


def test_results_are_plain_json():
    image_HW3, words = random_scene(2)
    about = adaptive(words, 640).inspect([image_HW3]).to_json()
    assert json.loads(json.dumps(about)) == about
    assert about["megapixels"] == (about["pass1_pixels"] + about["pass2_pixels"]) / 1e6


def test_a_stride_that_the_detector_pads_further_is_refused():
    """Else more pixels would be spent than are counted."""
    reader, (_, words) = Reader(), random_scene(0)
    prior = Oracle(words, 640, reader)
    prior.multiple = 32
    with pytest.raises(UserError, match="adapt.stride=48 must be a multiple of 32"):
        AdaptiveDetector(reader, prior, config=AdaptConfig(stride=48))
    AdaptiveDetector(reader, prior, config=AdaptConfig(stride=64))


@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    room=st.integers(1024, 10**6),
)
@settings(max_examples=20)
def test_the_first_look_is_the_largest_that_the_budget_allows(width, height, room):
    side = pass1_side(width, height, AdaptConfig(pass1_side=5000, max_pixels=10**8), room)
    assert side is not None and copy_size(width, height, side, 32)[2] <= room
    full = max(width, height)
    assert side == full or copy_size(width, height, side + 1, 32)[2] > room
