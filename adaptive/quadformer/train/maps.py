"""Patches by saliency maps that were made beforehand, in the place of a prior.

Shapes: B images, S nodes that may split; h x w of a map.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from adaptive.core.prior.area import join_levels, map_levels, node_areas
from adaptive.core.solvers.quadtree import Geometry, Leaves, split_order


def map_leaves(map_B1hw: Float[Tensor, "B 1 h w"], geometry: Geometry, num_tokens: int) -> Leaves:
    """The leaves of each image when a node is worth the saliency that it covers.

    Raises:
        UserError: an infeasible number of tokens.
    """
    return split_order(map_scores(map_B1hw, geometry), geometry).leaves(num_tokens)


def map_scores(map_B1hw: Float[Tensor, "B 1 h w"], geometry: Geometry) -> Float[Tensor, "B S"]:
    """Saliency that each node covers: the mean of the map there, times the node's area."""
    if not geometry.splittable:
        return map_B1hw.new_zeros(len(map_B1hw), 0)
    density_BS = join_levels(map_levels(map_B1hw[:, 0], geometry))
    return density_BS * node_areas(geometry, density_BS)
