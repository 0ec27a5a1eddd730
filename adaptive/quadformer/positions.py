"""Positions of quadtree nodes, from a ViT's tables of its uniform grid.

Finest nodes have the grid's own entries, so that a model at the full grid is the one it came from.

Shapes: B images, N leaves of each, C cells of the finest grid, V nodes of all levels, D width,
H heads, E a sine and a cosine for each channel of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from adaptive.core.solvers.quadtree import Geometry


def area_average(table_CD: Float[Tensor, "C D"], geometry: Geometry) -> Float[Tensor, "V D"]:
    """Absolute positions: the mean of a table of the cells over those that each node covers."""
    levels, grid_DRC = [table_CD], table_CD.T.unflatten(1, geometry.grid)
    for _ in geometry.sides[1:]:
        grid_DRC = F.avg_pool2d(grid_DRC, 2)
        levels.append(grid_DRC.flatten(1).T)
    return torch.cat(levels[::-1])


def centre_rotations(
    rope_CE: Float[Tensor, "*X C E"], geometry: Geometry
) -> Float[Tensor, "*X V E"]:
    """Rotary positions: the rotation at each node's centre.

    The centre of a coarse node is the corner between four cells, and angles are linear in the
    position. So the sum of those four cells' rotations points where the centre's does, for all
    frequencies below half a turn a cell, which the cells' own table cannot tell apart either.

    Args:
        rope_CE: sines, then cosines, of each cell; leading dimensions (layers, heads) are kept.
        geometry: of the images.
    """
    E = rope_CE.shape[-1]
    levels = [rope_CE]
    for rows, cols in geometry.shapes[-2::-1]:
        side = geometry.grid[0] // rows
        nodes = rope_CE.unflatten(-2, (rows, side, cols, side))
        middle = slice(side // 2 - 1, side // 2 + 1)
        mean_VE = nodes[..., middle, :, middle, :].mean(dim=(-4, -2)).flatten(-3, -2)
        sin, cos = mean_VE.split(E // 2, dim=-1)
        # Not hypot, which ONNX lacks. It is 0 at half a turn: no position there.
        length = (sin.square() + cos.square()).sqrt().clamp(min=1e-6)
        levels.append(torch.cat([sin / length, cos / length], -1))
    return torch.cat(levels[::-1], dim=-2)


def leaf_rotations(
    vit: Any, geometry: Geometry, node_BN: Int[Tensor, "B N"] | None, prefix: int
) -> Tensor | None:
    """Rotary positions as attention applies them to tokens.

    Args:
        vit: whose rotary positions they are.
        geometry: of the images.
        node_BN: leaves of each image; None: the finest grid, for all images.
        prefix: number of tokens before them, which are not turned.

    Returns:
        Sine and cosine [B, heads, prefix + N, E], or [blocks, B, heads, prefix + N, E] where the
        blocks differ; 1 stands for heads or images that agree; None where the ViT has none.
    """
    rope = getattr(vit, "rope", None)
    if rope is None:
        return None
    known = getattr(rope, "feat_shape", None) is not None
    table_HCE = rope.get_embed() if known else rope.get_embed(list(geometry.grid))
    if not vit.rope_mixed:
        table_HCE = table_HCE[None]
    if node_BN is None:
        found = table_HCE.unsqueeze(-4)
    else:
        table_HVE = centre_rotations(table_HCE, geometry)
        found = table_HVE[..., node_BN, :].movedim(-3, -4)
    E = found.shape[-1]
    still_E = torch.cat([found.new_zeros(E // 2), found.new_ones(E - E // 2)])
    return torch.cat([still_E.expand(*found.shape[:-2], prefix, E), found], -2)
