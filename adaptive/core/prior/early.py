"""A vision transformer's own first block as prior.

Shapes: B images, D channels of the features, H and W pixels, h and w nodes of the finest level that
may split, T = h * w tokens.
"""

from __future__ import annotations

import copy

from jaxtyping import Float
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.prior.base import PRIORS
from adaptive.core.prior.feature import FrozenFeatures, create, freeze
from adaptive.core.solvers.quadtree.geometry import Geometry


@PRIORS.register("early")
class EarlyPrior(FrozenFeatures):
    """Contrast of a ViT's tokens after its first block, one token a node of the finest that split.

    That is a quarter of the full grid's tokens through one block. The weights are copied, so that
    training the model does not move its tokens about: give a model that has been trained.

    Args:
        vit: a plain ViT of timm, with learned or fixed positions added to its tokens, or its name.
        pretrained: load timm's weights for a name.
    """

    positions_1TD: Tensor

    def __init__(
        self, *, vit: nn.Module | str, pretrained: bool = False, alpha: float | None = None
    ):
        from timm.data.config import resolve_data_config
        from timm.models.vision_transformer import VisionTransformer

        if isinstance(vit, str):
            vit = create(f"early(vit={vit!r}, pretrained={pretrained})", vit, pretrained)
        if not isinstance(vit, VisionTransformer) or vit.pos_embed is None:
            raise UserError(
                f"early(vit={type(vit).__name__}): choose a VisionTransformer of timm that adds "
                "positions to its tokens"
            )
        super().__init__(resolve_data_config({}, model=vit), alpha=alpha)
        self.projection = freeze(copy.deepcopy(vit.patch_embed.proj))
        self.embedding_norm = freeze(copy.deepcopy(vit.patch_embed.norm))
        self.norm = freeze(copy.deepcopy(vit.norm_pre))
        self.block = freeze(copy.deepcopy(vit.blocks[0]))
        self.patch, self.grid = vit.patch_embed.patch_size, vit.patch_embed.grid_size
        tokens = self.grid[0] * self.grid[1]
        # Class and register tokens come first in the table, if it has them at all.
        positions_1TD = vit.pos_embed.detach()[:, -tokens:].clone()
        self.register_buffer("positions_1TD", positions_1TD)

    def features(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B D h w"]:
        from timm.layers import resample_abs_pos_embed

        rows, cols = geometry.shapes[-2]
        small_BCHW = self.shrunk(image_BCHW, (rows * self.patch[0], cols * self.patch[1]))
        x_BDhw = self.projection(small_BCHW.to(self.positions_1TD.dtype))
        x_BTD = self.embedding_norm(x_BDhw.flatten(2).transpose(1, 2))
        x_BTD = x_BTD + resample_abs_pos_embed(
            self.positions_1TD, [rows, cols], list(self.grid), num_prefix_tokens=0
        )
        x_BTD = self.block(self.norm(x_BTD))
        return x_BTD.transpose(1, 2).unflatten(2, (rows, cols))
