"""Pixel gain and blur against their definitions, and gain as a rule for the best tree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadtrees import best_gain, children
from skimage import io
from some_priors import images

from adaptive.core.prior import build_prior
from adaptive.core.solvers.quadtree import Geometry, split_order


def distortion(image_CHW: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Squared error of showing each node as one patch, [nodes], in double precision."""
    errors = []
    for row, col, side in geometry.boxes:
        node = image_CHW[:, row : row + side, col : col + side].astype(np.float64)
        block = side // geometry.min_patch
        pooled = node.reshape(3, geometry.min_patch, block, geometry.min_patch, block).mean((2, 4))
        shown = pooled.repeat(block, 1).repeat(block, 2)
        errors.append(((node - shown) ** 2).sum())
    return np.array(errors)


@given(
    rows=st.integers(1, 2),
    cols=st.integers(1, 3),
    patch=st.integers(1, 7),
    levels=st.integers(2, 4),
    offset=st.sampled_from([0.0, 0.9]),
    seed=st.integers(0, 99),
)
@settings(max_examples=20)
def test_gain_is_the_error_that_a_split_takes_away(rows, cols, patch, levels, offset, seed):
    side = patch << (levels - 1)
    geometry = Geometry(rows * side, cols * side, patch, side)
    # An offset makes the error a small difference of large squares, if it is computed like that.
    image_BCHW = offset + (1 - offset) * images(1, geometry, seed)
    error_V = distortion(image_BCHW[0].numpy(), geometry)
    below = children(geometry)[: geometry.splittable]
    expected_S = [error_V[node] - error_V[kids].sum() for node, kids in enumerate(below)]
    gain_BS = build_prior("gain")(image_BCHW, geometry)
    np.testing.assert_allclose(gain_BS[0], expected_S, rtol=1e-4, atol=1e-9)
    blur_BS = build_prior("blur")(image_BCHW, geometry)
    sides = geometry.boxes[: geometry.splittable, 2]
    rmse_S = np.sqrt(error_V[: geometry.splittable] / (3 * sides**2))
    np.testing.assert_allclose(blur_BS[0], rmse_S * sides / patch, rtol=1e-4)


@given(level=st.floats(0, 1, width=32))
@settings(max_examples=10)
def test_a_blank_image_has_nothing_to_gain(level):
    geometry = Geometry(64, 64, 8, 32)
    blank_BCHW = torch.full((1, 3, 64, 64), level)
    assert (build_prior("gain")(blank_BCHW, geometry) == 0).all()
    assert (build_prior("blur")(blank_BCHW, geometry) == 0).all()


@pytest.mark.data
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_gain_comes_within_a_fraction_of_the_best_tree(name, data_dir):
    geometry = Geometry(128, 128, 8, 32)
    pixels_HWC = io.imread(data_dir / "photos_cc0" / f"{name}.png")[:, :, :3]
    top, left = (np.array(pixels_HWC.shape[:2]) - 128) // 2
    crop_HWC = pixels_HWC[top : top + 128, left : left + 128] / 255
    image_BCHW = torch.tensor(crop_HWC, dtype=torch.float32).permute(2, 0, 1)[None]
    error_V = distortion(image_BCHW[0].numpy(), geometry)
    gain_BS = build_prior("gain")(image_BCHW, geometry)
    best = best_gain(gain_BS[0].double().numpy(), geometry)
    whole = error_V[: geometry.roots].sum()
    order = split_order(gain_BS, geometry)
    for tokens in (31, 64, 100, 151, 202):
        left_over = error_V[order.leaves(tokens).node_BN[0]].sum()
        optimum = whole - best[geometry.splits(tokens)]
        assert optimum * 0.9999 <= left_over <= optimum * 1.002
