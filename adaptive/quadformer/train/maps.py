"""Patches by saliency maps that were made beforehand, in the place of a prior.

Shapes: B images, S nodes that may split; h x w of a map.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from adaptive.core.solvers.quadtree import Geometry, Leaves, split_order


def map_leaves(map_B1hw: Float[Tensor, "B 1 h w"], geometry: Geometry, num_tokens: int) -> Leaves:
    """The leaves of each image when a node is worth the saliency that it covers.

    Raises:
        UserError: an infeasible number of tokens.
    """
    return split_order(map_scores(map_B1hw, geometry), geometry).leaves(num_tokens)


def map_scores(map_B1hw: Float[Tensor, "B 1 h w"], geometry: Geometry) -> Float[Tensor, "B S"]:
    """Saliency that each node covers: the mean of the map there, times the node's area."""
    # The finest grid first: from there on cells are whole, whatever size the map has.
    cell_B1hw = functional.interpolate(map_B1hw.float(), geometry.grid, mode="area")
    parts = []
    for side, shape in zip(geometry.sides[:-1], geometry.shapes[:-1], strict=True):
        area = (side // geometry.min_patch) ** 2
        parts.append(functional.adaptive_avg_pool2d(cell_B1hw, shape).flatten(1) * area)
    if not parts:
        return map_B1hw.new_zeros(len(map_B1hw), 0)
    return torch.cat(parts, 1)
