"""The trivial way to fewer tokens: the whole image at a lower resolution.

Shapes: B images, C channels, H, W pixels, N patches, D width, K classes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive.core.errors import UserError
from adaptive.quadformer.baselines.registry import BASELINES
from adaptive.quadformer.macs import block_macs, embedding_macs, head_macs
from adaptive.quadformer.patches import grid_patches
from adaptive.quadformer.trunk import (
    classify,
    embed_patches,
    patch_positions,
    prefix_tokens,
    run_blocks,
)
from adaptive.quadformer.wrapper import VitWrapper


@BASELINES.register("uniform")
class Uniform(VitWrapper):
    """A ViT on images resized so that they have about ``num_tokens`` of its patches.

    A square image gets ``round(sqrt(num_tokens))`` patches a side; :meth:`grid` says how many in
    general. The table of positions is interpolated, as timm does for other sizes of images.

    Args:
        vit: a plain timm ViT with absolute positions.
        num_tokens: patches of each image; None: the full grid.

    Raises:
        UserError: a ViT with rotary positions, which timm ties to one grid.
    """

    def __init__(self, vit: nn.Module, *, num_tokens: int | None = None):
        super().__init__(vit)
        if getattr(vit, "rope", None) is not None:
            raise UserError(
                "the uniform baseline interpolates absolute positions and this ViT has rotary "
                "ones: create one of that size with img_size instead"
            )
        self.num_tokens = self.cells if num_tokens is None else num_tokens

    def grid(self, num_tokens: int | None = None) -> tuple[int, int]:
        """Rows and columns of the patches for a number of tokens, in the image's proportions."""
        tokens, (height, width) = self.tokens(num_tokens), self.img_size
        rows = max(1, round((tokens * height / width) ** 0.5))
        return rows, max(1, round((tokens * width / height) ** 0.5))

    def size(self, num_tokens: int | None = None) -> tuple[int, int]:
        """Height and width of the resized images in pixels."""
        rows, cols = self.grid(num_tokens)
        return rows * self.patch_size, cols * self.patch_size

    def resize(
        self, image_BCHW: Float[Tensor, "B 3 H W"], num_tokens: int | None = None
    ) -> Float[Tensor, "B 3 h w"]:
        """Images of the ViT's size at the size for a number of tokens, as a loader may do it."""
        self.check_image(image_BCHW)
        size = self.size(num_tokens)
        if size == self.img_size:
            return image_BCHW
        return F.interpolate(image_BCHW, size, mode="bilinear", align_corners=False, antialias=True)

    def forward(
        self, image_BCHW: Float[Tensor, "B 3 _ _"], num_tokens: int | None = None
    ) -> Tensor:
        """Logits of normalised images, of the ViT's size or already resized, [B, K]."""
        vit, (rows, cols) = self.vit, self.grid(num_tokens)
        if tuple(image_BCHW.shape[2:]) != self.size(num_tokens):
            image_BCHW = self.resize(image_BCHW, num_tokens)
        token_BND = embed_patches(vit, grid_patches(image_BCHW, self.patch_size))
        table_CD = patch_positions(vit)
        if table_CD is not None:
            token_BND = token_BND + resample_abs_pos_embed(
                table_CD[None],
                new_size=[rows, cols],
                old_size=list(vit.patch_embed.grid_size),
                num_prefix_tokens=0,
            )
        prefix_BPD = prefix_tokens(vit, image_BCHW.shape[0]).to(token_BND.dtype)
        x_BLD, _ = run_blocks(vit, torch.cat([prefix_BPD, token_BND], 1))
        return classify(vit, vit.norm(x_BLD))

    def gmacs(self, num_tokens: int | None = None) -> float:
        """Billions of multiply-accumulates for one image; see :mod:`adaptive.quadformer.macs`."""
        rows, cols = self.grid(num_tokens)
        patches, vit = rows * cols, self.vit
        total = embedding_macs(vit, patches) + head_macs(vit, patches)
        return (total + sum(block_macs(vit, block, patches) for block in vit.blocks)) / 1e9
