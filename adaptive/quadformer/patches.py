"""Pixels of quadtree leaves, each resized to the side of the finest patches, and maps of leaves.

A leaf is resized by averaging, so leaves of one level are patches of an average-pooled image. They
are read by index from a view of each level's image: no level is ever laid out patch by patch as a
whole, only the leaves are copied.

Shapes: B images, C channels, H, W pixels, P side of the finest patches, L... leaves: [B, N] or [T],
D channels of a map.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from adaptive.core.solvers.quadtree import Geometry, Leaves


def leaf_patches(
    image_BCHW: Float[Tensor, "B C H W"],
    node_L: Int[Tensor, "*L"],
    which_L: Int[Tensor, ...],
    geometry: Geometry,
) -> Float[Tensor, "*L C P P"]:
    """The pixels of some leaves.

    Args:
        image_BCHW: images of the geometry's size, of any scale of values.
        node_L: numbers of the leaves.
        which_L: the image of each leaf, broadcast to ``node_L``.
        geometry: of the images.

    Returns:
        Each leaf averaged down to ``geometry.min_patch`` pixels a side.
    """
    found, level_BCHW = None, image_BCHW
    for level in reversed(range(len(geometry.sides))):
        _, cols = geometry.shapes[level]
        first, end = geometry.offsets[level : level + 2]
        here_L = (node_L >= first) & (node_L < end)
        # Leaves of other levels read the first patch, which stays in the cache.
        place_L = torch.where(here_L, node_L - first, 0)
        view = _patch_view(level_BCHW, geometry.min_patch)
        patch_LCPP = view[which_L, :, place_L // cols, :, place_L % cols]
        if found is None:
            found = patch_LCPP
        else:
            found = torch.where(here_L[..., None, None, None], patch_LCPP, found)
        if level:
            level_BCHW = F.avg_pool2d(level_BCHW, 2)
    assert found is not None  # a geometry has at least one level
    return found


def grid_patches(
    image_BCHW: Float[Tensor, "B C H W"], patch: int
) -> Float[Tensor, "B cells C P P"]:
    """The patches of a uniform grid, row by row."""
    return _patch_view(image_BCHW, patch).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def leaf_areas(node_L: Int[Tensor, "*L"], geometry: Geometry) -> Float[Tensor, "*L"]:
    """Areas of leaves in cells of the finest grid, float32."""
    area_L = torch.full_like(node_L, 4 ** (len(geometry.sides) - 1), dtype=torch.float32)
    for first in geometry.offsets[1:-1]:
        area_L = torch.where(node_L >= first, area_L / 4, area_L)
    return area_L


def leaf_maps(
    y_BND: Float[Tensor, "B N D"], node_BN: Int[Tensor, "B N"] | None, geometry: Geometry
) -> Float[Tensor, "B D rows cols"]:
    """What is known of the leaves, on the finest grid: each fills the cells that it covers.

    Args:
        y_BND: of each leaf.
        node_BN: numbers of the leaves; None: the finest grid itself.
        geometry: of the images.
    """
    if node_BN is not None:
        owner_BC = Leaves(geometry, node_BN).owners()
        y_BND = y_BND.gather(1, owner_BC[..., None].expand(-1, -1, y_BND.shape[2]))
    return y_BND.transpose(1, 2).unflatten(2, geometry.grid)


def _patch_view(image_BCHW: Tensor, patch: int) -> Tensor:
    """The image as [B, C, rows, P, cols, P], without a copy."""
    return image_BCHW.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
