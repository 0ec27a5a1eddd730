"""A timm ViT taken apart: what comes before, between and after its patches' embedding.

Shapes: B images, N patches, P prefix tokens (class, distillation, registers), L = P + N tokens,
D width, K classes; rows may be padded.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import PatchEmbed, resample_abs_pos_embed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from adaptive.core.errors import UserError
from adaptive.quadformer.attention import Keys, TokenAttention
from adaptive.quadformer.slim import SlimBlock


def check_vit(vit: Any) -> None:
    """Refuses models whose patches cannot be replaced by others.

    Raises:
        UserError: says why, and which models can be wrapped.
    """
    name = type(vit).__name__
    if not isinstance(vit, VisionTransformer | Eva):
        raise UserError(
            f"{name} cannot be wrapped: choose a plain timm ViT, such as vit_*, deit*_patch16_*, "
            "eva02_* or vit_*_rope_*, not a hierarchical, convolutional or NaFlex model"
        )
    embed = vit.patch_embed
    projection = getattr(embed, "proj", None)
    if (
        not isinstance(embed, PatchEmbed)
        or not isinstance(projection, nn.Conv2d)
        or projection.kernel_size != projection.stride
        or projection.kernel_size[0] != projection.kernel_size[1]
    ):
        raise UserError(
            f"{name} embeds patches by {type(embed).__name__}, which is no single layer over "
            "square patches: choose a ViT without a convolutional stem"
        )
    if projection.in_channels != 3:
        raise UserError(
            f"in_chans={projection.in_channels}: priors read RGB images, create the ViT with "
            "in_chans=3"
        )
    if embed.grid_size is None:
        raise UserError("the ViT has no img_size of its own: create it with img_size=HEIGHT,WIDTH")
    if getattr(getattr(vit, "patch_drop", None), "prob", 0.0) > 0:
        raise UserError(
            "patch_drop_rate would drop tokens that stand for much of the image: set it to 0 and "
            "lower num_tokens instead"
        )
    if vit.global_pool == "prr":
        raise UserError("global_pool=prr does not know areas: choose token, avg, max or map")


def embed_patches(vit: Any, patch_LCPP: Tensor) -> Tensor:
    """Embeddings of patches of pixels by the ViT's own layer, as one matrix product, [..., D]."""
    layer = vit.patch_embed.proj
    token_LD = F.linear(patch_LCPP.flatten(-3), layer.weight.flatten(1), layer.bias)
    return vit.patch_embed.norm(token_LD)


def patch_positions(
    vit: Any, grid: tuple[int, int] | None = None
) -> Float[Tensor, "cells D"] | None:
    """Absolute positions of the patches of a grid; None where the ViT has none.

    Args:
        vit: whose positions they are.
        grid: rows and columns, to which the ViT's own are resampled as timm does it; None: its own.
    """
    if vit.pos_embed is None:
        return None
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    own, table_1LD = vit.patch_embed.grid_size, vit.pos_embed
    if grid is not None and grid != own:
        table_1LD = resample_abs_pos_embed(
            table_1LD, new_size=list(grid), old_size=list(own), num_prefix_tokens=prefix
        )
    return table_1LD[0, prefix:]


def prefix_tokens(vit: Any, batch: int) -> Float[Tensor, "B P D"]:
    """Class, distillation and register tokens with their positions, as many as the ViT has."""
    names = ("cls_token", "dist_token", "reg_token")
    found = [getattr(vit, name, None) for name in names]
    parts = [token_1PD for token_1PD in found if token_1PD is not None]
    if not parts:
        weight = vit.patch_embed.proj.weight
        return weight.new_empty(batch, 0, weight.shape[0])
    token_1PD = torch.cat(parts, 1)
    if vit.pos_embed is not None and not vit.no_embed_class:
        token_1PD = token_1PD + vit.pos_embed[:, : vit.num_prefix_tokens]
    return token_1PD.expand(batch, -1, -1)


def run_blocks(
    vit: Any,
    x_BLD: Tensor,
    keys: Keys | None = None,
    rope: Tensor | None = None,
    taken: Collection[int] = (),
    stop: int | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Dropout of positions, norm before the blocks, and the blocks.

    Args:
        vit: whose attention is replaced, unless keys say no more than what is padding.
        x_BLD: tokens with their positions.
        keys: what attention is told of them.
        rope: sine and cosine of every token; of every block where the ViT's differ.
        taken: blocks whose outputs are wanted.
        stop: how many blocks are run; None: all.

    Returns:
        The last block's output, and those wanted.
    """
    x_BLD, outputs = vit.norm_pre(vit.pos_drop(x_BLD)), []
    for index, block in enumerate(vit.blocks[:stop]):
        extras: dict[str, Any] = {}
        if keys is not None:
            extras["attn_mask"] = keys if _adopted(block) else _mask(keys)
        if rope is not None:
            extras["rope"] = rope[index] if vit.rope_mixed else rope
        if vit.grad_checkpointing and torch.is_grad_enabled():
            x_BLD = checkpoint(block, x_BLD, use_reentrant=False, **extras)
        else:
            x_BLD = block(x_BLD, **extras)
        if index in taken:
            outputs.append(x_BLD)
    return x_BLD, outputs


def classify(
    vit: Any,
    x_BLD: Float[Tensor, "B L D"],
    area_BN: Float[Tensor, "B N"] | None = None,
    *,
    area_attention: bool = False,
    pre_logits: bool = False,
) -> Tensor:
    """The ViT's pooling and head, with patches weighted by their areas.

    Args:
        vit: whose final norm ``x_BLD`` went through.
        x_BLD: prefix tokens and patches.
        area_BN: area of each patch in cells, 0 for padding; None: all are equal.
        area_attention: pooling by attention weighs patches by their areas too.
        pre_logits: features instead of logits.

    Returns:
        Logits [B, K], or what the ViT's head returns for a ViT without pooling.
    """
    pool, attn_pool = vit.global_pool, getattr(vit, "attn_pool", None)
    if area_BN is None or (attn_pool is None and pool in ("token", "")):
        return vit.forward_head(x_BLD, pre_logits=pre_logits)
    P = vit.num_prefix_tokens
    weight_BL = F.pad(area_BN, (P, 0), value=1.0)
    if not pools_prefix(vit):
        x_BLD, weight_BL = x_BLD[:, P:], area_BN
    if attn_pool is not None:
        seen_BL = weight_BL if area_attention else (weight_BL > 0).to(weight_BL.dtype)
        y_BD = attn_pool(x_BLD, attn_mask=seen_BL.log().to(x_BLD.dtype)[:, None, None])
    else:
        y_BD = _pool(x_BLD, weight_BL, pool)
    y_BD = vit.head_drop(vit.fc_norm(y_BD))
    return y_BD if pre_logits else vit.head(y_BD)


def pools_prefix(vit: Any) -> bool:
    """Whether prefix tokens are pooled with the patches: Eva's attention pooling does."""
    always = isinstance(vit, Eva) and vit.attn_pool is not None
    return always or getattr(vit, "pool_include_prefix", False)


def _pool(x_BND: Tensor, weight_BN: Tensor, pool: str) -> Tensor:
    share_BN = weight_BN / weight_BN.sum(1, keepdim=True)
    # Sums in float32, as means of half precision have it.
    mean_BD = (x_BND.float() * share_BN[..., None]).sum(1).to(x_BND.dtype)
    if pool == "avg":
        return mean_BD
    max_BD = x_BND.masked_fill(weight_BN[..., None] == 0, -torch.inf).amax(1)
    return max_BD if pool == "max" else 0.5 * (max_BD + mean_BD)


def _adopted(block: Any) -> bool:
    attention = getattr(block, "attn", None)
    # A slim block may lack attention, and takes what it would be told all the same.
    return isinstance(attention, TokenAttention) or isinstance(block, SlimBlock)


def _mask(keys: Keys) -> Tensor | None:
    """The mask that timm's own attention takes: it knows of padding alone."""
    assert keys.bias_BLX is None and keys.offsets is None
    return None if keys.real_BL is None else keys.real_BL[:, None, None]
