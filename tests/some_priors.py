"""Registered priors with settings that tests can afford, and images for them."""

from __future__ import annotations

import timm
import torch
from torch import Tensor

import adaptive.textscale  # noqa: F401 (announces its prior)
from adaptive.core.prior import Prior, build_prior
from adaptive.core.solvers.quadtree import Geometry
from adaptive.textscale.network import TextNet

# 3 levels of patches of 8 to 32 pixels, taller than wide.
GEOMETRY = Geometry(96, 64, min_patch=8, max_patch=32)


def images(count: int = 2, geometry: Geometry = GEOMETRY, seed: int = 0) -> Tensor:
    """Noise whose strength and colour change over each image."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, geometry.size, mode="bilinear")
    return smooth * torch.rand(count, 3, *geometry.size, generator=generator)


def some_prior(name: str, count: int = 2) -> Prior:
    """A registered prior, with what text cannot hold where it needs that.

    Args:
        name: in the registry, or an expression.
        count: images that it is to be used for.
    """
    torch.manual_seed(0)
    settings = {}
    if "early" in name:
        settings["vit"] = timm.create_model("test_vit", img_size=64)
    if "text" in name:
        settings["net"] = TextNet("nano")
    if "precomputed" in name:
        settings["map_BHW"] = torch.rand(count, 7, 9)
    return build_prior(name, **settings)
