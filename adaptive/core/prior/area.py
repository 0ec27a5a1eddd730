"""Maps to grids by area: a cell's value is the mean of what it covers, whatever the two sizes.

Shapes: B images, H and W of a map, R rows and K columns of a grid.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.core.solvers.quadtree.geometry import Geometry


def area_resize(
    map_BHW: Float[Tensor, "*B H W"], rows: int, cols: int
) -> Float[Tensor, "*B {rows} {cols}"]:
    """Mean of a map over each cell of a grid, exact where cells cut through the map's pixels.

    Args:
        map_BHW: any leading dimensions.
        rows, cols: of the grid.
    """
    height, width = map_BHW.shape[-2:]
    if height % rows == 0 and width % cols == 0:
        blocks = map_BHW.unflatten(-1, (cols, -1)).unflatten(-3, (rows, -1))
        return blocks.mean((-3, -1))
    # Autocast would round the sums, and cells would no longer share out what the map holds.
    with torch.autocast(map_BHW.device.type, enabled=False):
        down_RH = _overlap(height, rows, map_BHW)
        across_KW = _overlap(width, cols, map_BHW)
        return down_RH @ map_BHW @ across_KW.T


def map_levels(map_BHW: Float[Tensor, "B H W"], geometry: Geometry) -> list[Tensor]:
    """Mean of a map over each node that may split, [B, R, K] by level, coarse to fine."""
    levels = [area_resize(map_BHW, *geometry.shapes[-2])]
    for _ in geometry.shapes[:-2]:
        levels.insert(0, over_children(levels[0]).mean((2, 4)))
    return levels


def over_children(value_BRK: Tensor) -> Tensor:
    """A level's values by parent, [B, R/2, 2, K/2, 2]: reducing over 2 and 4 joins children."""
    return value_BRK.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))


def _overlap(size: int, cells: int, like: Tensor) -> Tensor:
    """Share of each cell that each of ``size`` pixels makes up, [cells, size]."""
    # Both grids in whole units: a pixel is as many long as there are cells, and the reverse.
    pixel_H = torch.arange(size, device=like.device) * cells
    cell_R1 = torch.arange(cells, device=like.device)[:, None] * size
    begin_RH = torch.maximum(pixel_H, cell_R1)
    end_RH = torch.minimum(pixel_H + cells, cell_R1 + size)
    return (end_RH - begin_RH).clamp(min=0).to(like.dtype) / size
