"""Tokens of quadtree leaves: one patch embedding for all sizes, positions, and two options.

Ronen, Levy, Golbert, "Vision Transformers with Mixed-Resolution Tokenization" (CVPRW 2023) resize
every patch to the finest side and embed it as the ViT does. Resizing loses what made a region worth
fine patches elsewhere; the detail branch gives some of it back: embeddings of the finest patches
within a coarse one, brought together by strided convolutions and added through a layer that starts
at zero (in the spirit of APT, ICLR 2026). The scale embedding tells the sizes apart.

Shapes: B images, L... leaves: [B, N] or [T], V nodes, S that may split, C cells, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from adaptive.core.solvers.quadtree import Geometry
from adaptive.quadformer.patches import grid_patches, leaf_patches
from adaptive.quadformer.positions import area_average
from adaptive.quadformer.trunk import embed_patches, patch_positions


class QuadtreeTokenizer(nn.Module):
    """Turns leaves into tokens with the patch embedding and the positions of a ViT.

    Args:
        embed_dim: width of the tokens.
        levels: sizes of patches.
        detail: adds the detail branch.
        scale_embedding: adds a learned vector for each size.

    Both options add nothing until they are trained.
    """

    def __init__(self, embed_dim: int, levels: int, *, detail: bool, scale_embedding: bool):
        super().__init__()
        self.detail = DetailBranch(embed_dim) if detail else None
        scale_KD = torch.zeros(levels, embed_dim)
        self.scale_embed = nn.Parameter(scale_KD) if scale_embedding else None

    def forward(
        self,
        vit: Any,
        image_BCHW: Float[Tensor, "B C H W"],
        geometry: Geometry,
        node_L: Int[Tensor, "*L"] | None = None,
        which_L: Int[Tensor, ...] | None = None,
    ) -> Float[Tensor, "*L D"]:
        """Tokens with absolute positions, without prefix tokens.

        Args:
            vit: whose layers are used.
            image_BCHW: as the ViT takes them.
            geometry: of the images.
            node_L: numbers of the leaves; None: the finest grid, [B, C].
            which_L: the image of each leaf, broadcast to ``node_L``.
        """
        if node_L is None:
            token_LD = embed_patches(vit, grid_patches(image_BCHW, geometry.min_patch))
        else:
            assert which_L is not None
            patch_LCPP = leaf_patches(image_BCHW, node_L, which_L, geometry)
            token_LD = embed_patches(vit, patch_LCPP)
            if self.detail is not None and geometry.splittable:
                token_LD = token_LD + self.detail(vit, image_BCHW, geometry, node_L, which_L)
        table_VD = self._table(vit, geometry)
        if table_VD is None:
            return token_LD
        added = table_VD[geometry.splittable :] if node_L is None else table_VD[node_L]
        return token_LD + added

    def _table(self, vit: Any, geometry: Geometry) -> Tensor | None:
        """What is added to each node's embedding, [V, D]."""
        table_CD, table_VD = patch_positions(vit, geometry.grid), None
        if table_CD is not None:
            table_VD = area_average(table_CD, geometry)
        if self.scale_embed is not None:
            sizes = [rows * cols for rows, cols in geometry.shapes]
            parts = [
                row[None].expand(size, -1)
                for row, size in zip(self.scale_embed, sizes, strict=True)
            ]
            scale_VD = torch.cat(parts)
            table_VD = scale_VD if table_VD is None else table_VD + scale_VD
        return table_VD


class DetailBranch(nn.Module):
    """What the finest patches within a coarse leaf show, as an addition to its token."""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.merge = nn.Conv2d(embed_dim, embed_dim, 2, 2)
        self.out = nn.Linear(embed_dim, embed_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        vit: Any,
        image_BCHW: Float[Tensor, "B C H W"],
        geometry: Geometry,
        node_L: Int[Tensor, "*L"],
        which_L: Int[Tensor, ...],
    ) -> Float[Tensor, "*L D"]:
        """Additions to the tokens of the leaves, 0 for the finest."""
        fine_BCD = embed_patches(vit, grid_patches(image_BCHW, geometry.min_patch))
        map_BDRC = fine_BCD.transpose(1, 2).unflatten(2, geometry.grid)
        levels = []
        for _ in geometry.sides[1:]:
            map_BDRC = self.merge(map_BDRC)
            levels.append(map_BDRC.flatten(2).transpose(1, 2))
        coarse_BSD = self.out(torch.cat(levels[::-1], 1))
        coarse_L = node_L < geometry.splittable
        found_LD = coarse_BSD[which_L, torch.where(coarse_L, node_L, 0)]
        return torch.where(coarse_L[..., None], found_LD, 0)
