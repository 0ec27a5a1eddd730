"""Priors that are maps: what each of them sees, and how maps become densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import shannon_entropy
from some_priors import GEOMETRY, images, some_prior

from adaptive.core.errors import UserError
from adaptive.core.prior import area_resize, build_prior
from adaptive.core.solvers.quadtree import Geometry

SQUARE = Geometry(64, 64, 8, 32)


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_area_resize_is_the_mean_over_each_cell(size, grid):
    map_HW = torch.rand(size)
    # Blown up so that cells and pixels meet, plain means give the exact answer.
    fine = map_HW.repeat_interleave(grid[0], 0).repeat_interleave(grid[1], 1)
    expected = fine.view(grid[0], size[0], grid[1], size[1]).mean((1, 3))
    torch.testing.assert_close(area_resize(map_HW, *grid), expected)


def test_area_resize_is_exact_under_autocast():
    map_HW = torch.rand(7, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        resized = area_resize(map_HW, 3, 3)
    torch.testing.assert_close(resized, area_resize(map_HW, 3, 3))


@given(sigma=st.floats(0.1, 3), turns=st.integers(1, 3))
@settings(max_examples=10)
def test_centre_looks_the_same_from_all_sides(sigma, turns):
    prior = build_prior("centre", sigma=sigma)
    map_HW = prior.saliency(images(1, SQUARE), SQUARE)[0]
    assert torch.equal(map_HW, map_HW.flip(0)) and torch.equal(map_HW, map_HW.flip(1))
    assert torch.equal(map_HW, map_HW.rot90(turns))
    assert map_HW[3, 3] == map_HW.max() and map_HW[0, 0] == map_HW.min()


@pytest.mark.parametrize("name", ["gain", "sobel", "laplacian", "entropy", "spectral_residual"])
def test_content_priors_find_the_only_detail(name):
    image_BCHW = torch.full((1, 3, 64, 64), 0.5)
    image_BCHW[:, :, 34:46, 2:14] = torch.rand(12, 12)
    score_BS = build_prior(name)(image_BCHW, SQUARE)
    roots, finer = score_BS[0, : SQUARE.roots], score_BS[0, SQUARE.roots :]
    assert roots.argmax() == 2
    assert finer.argmax() == 8


def test_sobel_and_laplacian_measure_known_slopes():
    ramp_W = torch.arange(64) / 64
    slope_BCHW = ramp_W.expand(1, 3, 64, 64)
    inner = slice(1, -1)
    sobel_BHW = build_prior("sobel").saliency(slope_BCHW, SQUARE)
    torch.testing.assert_close(sobel_BHW[..., inner], torch.full((1, 64, 62), 1 / 64))
    bowl_BCHW = (ramp_W**2).expand(1, 3, 64, 64)
    laplacian_BHW = build_prior("laplacian").saliency(bowl_BCHW, SQUARE)
    torch.testing.assert_close(laplacian_BHW[..., inner], torch.full((1, 64, 62), 2 / 64**2))


@pytest.mark.parametrize("bins", [2, 32, 256])
def test_entropy_is_that_of_each_nodes_histogram(bins):
    generator = np.random.default_rng(0)
    byte_HW = generator.integers(0, 256, (64, 64))
    # Half a grey level from the edges of the bins, where rounding could decide.
    grey_HW = torch.tensor((byte_HW + 0.5) / 255, dtype=torch.float32)
    score_BS = build_prior("entropy", bins=bins)(grey_HW.expand(1, 3, 64, 64), SQUARE)
    binned_HW = byte_HW * bins // 256
    expected_S = [
        shannon_entropy(binned_HW[row : row + side, col : col + side])
        for row, col, side in SQUARE.boxes[: SQUARE.splittable]
    ]
    np.testing.assert_allclose(score_BS[0], expected_S, rtol=1e-5)


def test_random_depends_on_image_seed_and_node_alone():
    image_BCHW = images(3)
    noise_BS = build_prior("random")(image_BCHW, GEOMETRY)
    assert torch.equal(build_prior("random(seed=0)")(image_BCHW, GEOMETRY), noise_BS)
    assert len(noise_BS.unique()) == noise_BS.numel()
    assert not (build_prior("random(seed=1)")(image_BCHW, GEOMETRY) == noise_BS).any()


def test_random_is_uniform_and_without_trend():
    geometry = Geometry(512, 512, 8, 64)
    noise_BS = build_prior("random")(images(8, geometry), geometry).double()
    count = noise_BS.numel()
    # Six standard deviations, of the mean of uniform numbers and of correlations.
    assert abs(noise_BS.mean() - 0.5) < 6 / math.sqrt(12 * count)
    edges = torch.histc(noise_BS.float(), 16, 0, 1) / count
    assert (edges - 1 / 16).abs().max() < 6 * math.sqrt(1 / 16 / count)
    across = torch.corrcoef(noise_BS)[~torch.eye(8, dtype=torch.bool)]
    assert across.abs().max() < 6 / math.sqrt(noise_BS.shape[1])
    along = torch.corrcoef(torch.stack([noise_BS[:, 1:].flatten(), noise_BS[:, :-1].flatten()]))
    assert abs(along[0, 1]) < 6 / math.sqrt(count)


def test_precomputed_takes_maps_for_each_image_or_for_all():
    prior = build_prior("precomputed")
    with pytest.raises(UserError, match=r"set prior\.map_BHW"):
        prior(images(), GEOMETRY)
    prior.map_BHW = torch.rand(3, 12, 8)
    with pytest.raises(UserError, match="does not fit 2 images"):
        prior(images(), GEOMETRY)
    prior.map_BHW = prior.map_BHW[:1]
    score_BS = prior(images(), GEOMETRY)
    assert torch.equal(score_BS[0], score_BS[1])
    roots = prior.map_BHW.view(1, 3, 4, 2, 4).sum((2, 4)).flatten()
    torch.testing.assert_close(score_BS[0, : GEOMETRY.roots], roots)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("centre(sigma=0)", "sigma=0"),
        ("entropy(bins=1)", "2 bins"),
        ("spectral_residual(size=1)", "size=1"),
        ("gain(alpha=1e999)", "alpha=inf"),
        ("feature(network='resnet_0')", "no such network"),
        ("feature(reduction=3)", "one of"),
        ("feature(size=8)", "size=8"),
        ("early(vit='resnet18')", "VisionTransformer"),
        ("learned(width=0)", "width=0"),
        ("learned(weights='/nowhere/prior.safetensors')", "cannot be read"),
    ],
)
def test_settings_out_of_range_are_named(expression, message):
    with pytest.raises(UserError, match=message):
        build_prior(expression)


def test_weights_out_of_reach_are_said_to_be(monkeypatch):
    make = timm.create_model

    def offline(*args, pretrained=False, **settings):
        if pretrained:
            raise OSError("no route to the hub")
        return make(*args, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"no route to the hub.*pretrained=False"):
        build_prior("feature(pretrained=True)")


def test_network_priors_stay_frozen_and_keep_their_own_weights():
    prior = some_prior("feature + early").train()
    assert not any(parameter.requires_grad for parameter in prior.parameters())
    assert not any(module.training for part in prior.parts for module in part.modules())
    again = some_prior("feature + early")
    for parameter in again.parameters():
        parameter.data.normal_()
    again.load_state_dict(prior.state_dict())
    assert torch.equal(again(images(), GEOMETRY), prior(images(), GEOMETRY))
