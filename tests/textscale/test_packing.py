"""Laws of packings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.errors import UserError
from adaptive.textscale.packing import pack

SIZES = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=25)


@given(
    SIZES, st.sampled_from([8, 16, 32]), st.integers(0, 12), st.sampled_from([None, 20_000, 90_000])
)
def test_rectangles_lie_within_canvases_and_gutters_apart(sizes, stride, gutter, max_pixels):
    size_N2 = np.array(sizes)
    found = pack(size_N2, stride=stride, gutter=gutter, max_side=256, max_pixels=max_pixels)
    assert (found.size_M2 % stride == 0).all() and found.size_M2.max() <= 256
    assert sorted(set(found.canvas_N.tolist())) == list(range(len(found.size_M2)))
    for m, (width, height) in enumerate(found.size_M2):
        taken_hw = np.zeros((height, width), bool)
        for n in np.flatnonzero(found.canvas_N == m):
            (x, y), (w, h) = found.corner_N2[n], size_N2[n]
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
            assert not taken_hw[y : y + h + gutter, x : x + w + gutter].any()
            taken_hw[y : y + h, x : x + w] = True
        if max_pixels is not None and width * height > max_pixels:
            tops = {int(y) for y in found.corner_N2[found.canvas_N == m, 1]}
            assert tops == {0} or height <= stride  # a single shelf


def test_one_rectangle_costs_its_own_rounding_and_none_nothing():
    assert pack(np.array([[100, 40]]), stride=32).size_M2.tolist() == [[128, 64]]
    assert pack(np.array([[100, 40]]), stride=8).size_M2.tolist() == [[104, 40]]
    assert pack(np.zeros((0, 2), int)).pixels == 0


def test_words_waste_less_than_a_tenth_in_company():
    rng = np.random.default_rng(0)
    height_N = rng.uniform(60, 130, 50)
    size_N2 = np.stack([height_N * rng.uniform(0.8, 5, 50), height_N], 1).astype(int)
    assert pack(size_N2, gutter=0).pixels < 1.12 * size_N2.prod(1).sum()


def test_a_chip_that_no_canvas_holds_is_refused():
    with pytest.raises(UserError, match="max_side=256 is below a chip of 300"):
        pack(np.array([[300, 10]]), max_side=256)
