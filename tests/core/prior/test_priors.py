"""What holds for every registered prior."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from some_priors import GEOMETRY, images, some_prior

from adaptive.core.errors import UserError
from adaptive.core.prior import PRIORS, MapPrior
from adaptive.core.solvers.quadtree import Geometry, split_order

FORMULA = "gain**0.5 * centre + 0.1*entropy(bins=16)"
every_prior = pytest.mark.parametrize("name", [*PRIORS, FORMULA])
TRACED = ("gain", "centre", FORMULA)  # quickly; tracing the others takes a second each
every_prior_traced = pytest.mark.parametrize(
    "name",
    [n if n in TRACED else pytest.param(n, marks=pytest.mark.slow) for n in (*PRIORS, FORMULA)],
)


def level_means(score_BS: torch.Tensor, prior, geometry: Geometry) -> list[torch.Tensor]:
    """Mean density of each level, [B] each."""
    sizes = [rows * cols for rows, cols in geometry.shapes[:-1]]
    areas = [(side // geometry.min_patch) ** 2 for side in geometry.sides[:-1]]
    parts = zip(score_BS.split(sizes, 1), areas, strict=True)
    return [part_BS.mean(1) / area**prior.alpha for part_BS, area in parts]


@every_prior
def test_scores_are_finite_and_drive_the_selection(name):
    score_BS = some_prior(name)(images(), GEOMETRY)
    assert score_BS.shape == (2, GEOMETRY.splittable)
    assert score_BS.dtype == torch.float32
    assert score_BS.isfinite().all() and (score_BS >= 0).all()
    assert split_order(score_BS, GEOMETRY).leaves(33).num_tokens == 33


@every_prior
def test_an_image_scores_alone_as_it_does_in_a_batch(name):
    prior, image_BCHW = some_prior(name), images()
    together_BS = prior(image_BCHW, GEOMETRY)
    maps_BHW = getattr(prior, "map_BHW", None)
    for i in range(2):
        if maps_BHW is not None:
            prior.map_BHW = maps_BHW[i : i + 1]
        alone_BS = prior(image_BCHW[i : i + 1], GEOMETRY)
        torch.testing.assert_close(alone_BS, together_BS[i : i + 1], rtol=1e-4, atol=1e-6)


@every_prior_traced
@pytest.mark.usefixtures("compiling")
def test_compiles_into_one_graph(name):
    prior = some_prior(name)
    compiled = torch.compile(prior, fullgraph=True, backend="eager")
    unused = Geometry(96, 64, min_patch=8, max_patch=32)  # nothing of it is cached yet
    torch.testing.assert_close(compiled(images(), unused), prior(images(), GEOMETRY))


@every_prior_traced
@pytest.mark.usefixtures("compiling")
def test_exports_with_any_batch(name):
    class Scores(torch.nn.Module):
        """With the geometry in it, since programs take tensors."""

        def __init__(self):
            super().__init__()
            self.prior = some_prior(name, count=1)

        def forward(self, image_BCHW):
            return self.prior(image_BCHW, GEOMETRY)

    scores = Scores().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(scores, (images(2),), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(images(5)), scores(images(5)))


@every_prior
def test_half_precision_and_training_mode_change_little(name):
    prior = some_prior(name)
    exact_BS = prior(images(), GEOMETRY)
    prior.train()
    half_BS = prior(images().bfloat16(), GEOMETRY)
    assert half_BS.dtype == torch.float32
    distance = (half_BS - exact_BS).norm() / exact_BS.norm()
    # Noise is made from bytes, of which bfloat16 rounds some to others.
    assert distance < (1.0 if name == "random" else 0.1)


@every_prior
def test_a_blank_image_is_scored(name):
    blank_BCHW = torch.full((2, 3, *GEOMETRY.size), 0.3)
    assert some_prior(name)(blank_BCHW, GEOMETRY).isfinite().all()


@every_prior
def test_one_level_leaves_nothing_to_score(name):
    flat = Geometry(64, 64, min_patch=32, max_patch=32)
    assert some_prior(name)(images(2, flat), flat).shape == (2, 0)


@every_prior
def test_alpha_weighs_the_area(name):
    prior = some_prior(name)
    before_BS = prior(images(), GEOMETRY)
    prior.alpha += 0.5
    area_S = torch.tensor((GEOMETRY.boxes[: GEOMETRY.splittable, 2] // 8) ** 2)
    torch.testing.assert_close(prior(images(), GEOMETRY), before_BS * area_S**0.5)


@pytest.mark.parametrize("name", [name for name in PRIORS if issubclass(PRIORS[name], MapPrior)])
@given(rows=st.integers(1, 3), cols=st.integers(1, 3), patch=st.sampled_from([5, 8]))
@settings(max_examples=3)
def test_levels_of_a_map_share_its_mean(name, rows, cols, patch):
    geometry = Geometry(rows * 4 * patch, cols * 4 * patch, patch, 4 * patch)
    prior, image_BCHW = some_prior(name), images(2, geometry)
    mean_B = prior.saliency(image_BCHW, geometry).mean((1, 2)).detach()
    for level_B in level_means(prior(image_BCHW, geometry), prior, geometry):
        torch.testing.assert_close(level_B, mean_B, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 96, 64), "batches"),
        (torch.rand(2, 1, 96, 64), "repeat it"),
        (torch.rand(2, 4, 96, 64), "4 channels"),
        (torch.rand(0, 3, 96, 64), "no images"),
        (torch.rand(2, 3, 64, 96), "64 x 96 pixels do not fit"),
        (torch.zeros(2, 3, 96, 64, dtype=torch.uint8), "divide bytes by 255"),
        (torch.rand(2, 3, 96, 64) * 255, "divide bytes by 255"),
        (torch.rand(2, 3, 96, 64) * 4 - 2, "undo the normalisation"),
        (torch.full((2, 3, 96, 64), torch.nan), "NaN"),
    ],
)
def test_images_that_are_none_are_refused(image, message):
    with pytest.raises(UserError, match=message):
        some_prior("centre")(image, GEOMETRY)


def test_one_bad_pixel_is_found():
    image_BCHW = images()
    image_BCHW[1, 2, 40, 3] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        some_prior("entropy")(image_BCHW, GEOMETRY)
