"""Pictures of patches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.report.mosaic import mosaic_plot, seen
from adaptive.core.solvers.quadtree import Geometry

GEOMETRY = Geometry(16, 16, 4, 8)


def boxes(nodes):
    return GEOMETRY.boxes[nodes]


@given(seed=st.integers(0, 100))
def test_fine_patches_keep_their_pixels_and_coarse_ones_their_mean(seed):
    pixel_3HW = np.random.default_rng(seed).integers(0, 256, (3, 16, 16)).astype(np.uint8)
    fine = [n for n, parent in enumerate(GEOMETRY.parents) if parent == 0]
    image_HW3 = seen(pixel_3HW, boxes([1, 2, 3, *fine]))
    original_HW3 = pixel_3HW.transpose(1, 2, 0)
    assert (image_HW3[:8, :8] == original_HW3[:8, :8]).all()
    means = original_HW3.reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(image_HW3[::2, 1::2][4:].astype(float) - means[4:]).max() <= 0.5
    assert (image_HW3[8::2] == image_HW3[9::2]).all()


def test_a_picture_for_each_image_with_all_borders():
    pixel_B3HW = np.zeros((5, 3, 16, 16), np.uint8)
    nodes = [[0, 1, 2, 3]] * 4 + [list(range(4, 20))]
    figure = mosaic_plot(pixel_B3HW, [boxes(n) for n in nodes], titles=list("abcde"))
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title("left") for axes in drawn] == list("abcde")
    assert [len(axes.collections[0].get_paths()) for axes in drawn] == [4, 4, 4, 4, 16]
