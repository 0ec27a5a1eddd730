"""Chips on canvases, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.textscale.canvas import Chips, compose, padded, resized, restore, to_image
from adaptive.textscale.packing import pack
from adaptive.textscale.words import Detections


def chips_of(boxes, zooms, image=0) -> Chips:
    box_N4 = np.array(boxes)
    side_N2 = box_N4[:, 2:] - box_N4[:, :2]
    size_N2 = np.maximum(1, np.rint(side_N2 * np.array(zooms)[:, None]).astype(int))
    return Chips(np.full(len(boxes), image), box_N4, size_N2)


@given(st.integers(0, 200), st.integers(0, 100), st.floats(0.2, 3), st.integers(0, 2**31))
def test_points_come_back_to_half_a_pixel(x, y, zoom, seed):
    """A bright square on a dark image is cut, resized, packed, located and mapped back."""
    rng = np.random.default_rng(seed)
    image_HW3 = np.zeros((240, 320, 3), np.uint8)
    w, h = (int(v) for v in rng.integers(20, 60, 2))
    image_HW3[y + 10 : y + 10 + h, x + 10 : x + 10 + w] = 200
    box = (x, y, min(320, x + w + 20), min(240, y + h + 20))
    chips = chips_of([box, (0, 0, 50, 40)], [zoom, 1.0])
    packing = pack(chips.size_N2, stride=8)
    canvas_hw3 = compose([image_HW3], chips, packing, 8)[packing.canvas_N[0]]
    (cx, cy), (cw, ch) = packing.corner_N2[0], chips.size_N2[0]
    chip_hw = canvas_hw3[cy : cy + ch, cx : cx + cw, 0].astype(float)
    # Area and bicubic resizing keep sums, so the square's middle is a mean, to a sub-pixel.
    middle_2 = [
        (chip_hw.sum(axis) * (np.arange(chip_hw.shape[1 - axis]) + 0.5)).sum() / chip_hw.sum()
        for axis in (0, 1)
    ]
    local_142 = np.tile(np.array(middle_2, np.float32), (1, 4, 1))
    back_2 = to_image(local_142, chips, np.array([0]))[0, 0]
    visible_w = min(320, x + 10 + w) - (x + 10)
    visible_h = min(240, y + 10 + h) - (y + 10)
    truth_2 = (x + 10 + visible_w / 2, y + 10 + visible_h / 2)
    assert back_2 == pytest.approx(truth_2, abs=0.5)


@given(st.floats(0.3, 3), st.integers(0, 2**31))
def test_mapping_back_inverts_the_mapping_there_exactly(zoom, seed):
    rng = np.random.default_rng(seed)
    boxes = np.array([[10, 20, 90, 60], [100, 5, 300, 45], [0, 100, 33, 131]])
    chips = chips_of(boxes, [zoom, zoom, 1.0])
    packing = pack(chips.size_N2)
    n = int(rng.integers(3))
    point_42 = boxes[n, :2] + rng.uniform(0.2, 0.8, (4, 2)) * (boxes[n, 2:] - boxes[n, :2])
    ratio_2 = chips.size_N2[n] / (boxes[n, 2:] - boxes[n, :2])
    on_canvas_42 = packing.corner_N2[n] + (point_42 - boxes[n, :2]) * ratio_2
    found = [Detections.none() for _ in packing.size_M2]
    quad_142 = on_canvas_42[None].astype(np.float32)
    found[packing.canvas_N[n]] = Detections(quad_142, np.ones(1, np.float32))
    back, chip_K = restore(found, chips, packing, np.array([[320, 240]]))
    if len(back):  # a point near the edge may make the box one that is cut
        assert chip_K.tolist() == [n]
        assert back.quad_N42[0] == pytest.approx(point_42, abs=1e-3)


@pytest.mark.parametrize(
    ("quad", "stays"),
    [
        ((5, 5, 30, 20), True),
        ((0, 5, 30, 20), False),  # cut at the left
        ((5, 5, 40, 20), False),  # cut at the right
        ((5, 25, 30, 32), True),  # below, the image ends too
        ((50, 5, 60, 20), False),  # in the gutter
    ],
)
def test_words_cut_by_a_chip_go_unless_the_image_cuts_them(quad, stays):
    chips = chips_of([(100, 50, 140, 82)], [1.0])
    packing = pack(chips.size_N2, stride=64)
    x0, y0, x1, y1 = quad
    quad_142 = np.array([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]], np.float32)
    found = [Detections(quad_142, np.ones(1, np.float32))]
    back, _ = restore(found, chips, packing, np.array([[320, 82]]))
    assert len(back) == stays
    if stays:
        assert back.quad_N42[0, 0].tolist() == [100 + x0, 50 + y0]


def test_gutters_continue_the_chips_and_the_rest_is_their_mean():
    image_HW3 = np.zeros((40, 100, 3), np.uint8)
    image_HW3[:, :50], image_HW3[:, 50:] = 60, 180
    chips = chips_of([(0, 0, 50, 40), (50, 0, 100, 40)], [1.0, 1.0])
    packing = pack(chips.size_N2, stride=64, gutter=8)
    (canvas_hw3,) = compose([image_HW3], chips, packing, 8)
    for (x, y), value in zip(packing.corner_N2, (60, 180), strict=True):
        assert (canvas_hw3[y : y + 48, x : x + 58] == value).all()
        canvas_hw3[y : y + 48, x : x + 58] = 120
    assert (canvas_hw3 == 120).all()


def test_resizing_and_padding_keep_pixels():
    image_HW3 = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    assert resized(image_HW3, 7, 5) is image_HW3
    wide_hw3 = padded(image_HW3, 8)
    assert wide_hw3.shape == (8, 8, 3) and (wide_hw3[:5, :7] == image_HW3).all()
    assert (wide_hw3[:5, 7] == image_HW3[:, 6]).all()
