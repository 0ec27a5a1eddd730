"""Tiny ViTs of every kind that timm has, and a prior, for tests of models."""

from __future__ import annotations

import timm
import torch
from torch import nn
from torch.nn import functional as F

SMALL = {"embed_dim": 96, "num_heads": 3}

# A name, and what makes it small: each is of another kind.
VITS = {
    "vit_tiny_patch16_224": {},  # class token
    "deit_tiny_distilled_patch16_224": {},  # two prefix tokens, two heads
    "deit3_small_patch16_224": SMALL,  # no position for the class token, layer scale
    "vit_base_patch16_clip_224": SMALL,  # norm before the blocks, no bias in the embedding
    "vit_base_patch16_rpn_224": SMALL,  # pooled, norms after attention and FFN
    "vit_small_patch14_reg4_dinov2": {**SMALL, "img_size": 224},  # registers
    "vit_base_patch16_siglip_256": SMALL,  # pooled by attention, no prefix tokens
    "vit_base_patch16_reg4_gap_256": SMALL,  # registers, pooled
    "eva_large_patch14_196": SMALL,  # EVA, absolute positions, no bias of keys
    "eva02_tiny_patch14_224": {},  # EVA-02, rotary and absolute
    "vit_small_patch16_rope_mixed_ape_224": SMALL,  # rotary, learned for each block
    "vit_base_patch16_rope_reg1_gap_256": SMALL,  # rotary, pooled
    "vit_small_patch16_dinov3": {**SMALL, "img_size": 256},  # rotary, normalised coordinates
}


def tiny_vit(name: str = "vit_tiny_patch16_224", **settings) -> nn.Module:
    """Two blocks, seven classes, and weights that let every part matter."""
    torch.manual_seed(0)
    vit = timm.create_model(name, **{"depth": 2, "num_classes": 7, **VITS[name], **settings})
    with torch.no_grad():
        for parameter_name, parameter in vit.named_parameters():
            if "rope" not in parameter_name:
                # Layer scales and heads begin near 0, which would hide whatever is wrong.
                parameter.add_(0.05 * torch.randn_like(parameter))
    return vit.eval()


def variance(image_BCHW: torch.Tensor, geometry) -> torch.Tensor:
    """A prior: the sum of squared deviations from each node's mean."""
    parts = []
    for side in geometry.sides[:-1]:
        mean, square = F.avg_pool2d(image_BCHW, side), F.avg_pool2d(image_BCHW**2, side)
        parts.append((square - mean**2).mean(1).flatten(1) * side**2)
    return torch.cat(parts, 1) if parts else image_BCHW.new_zeros(image_BCHW.shape[0], 0)


def images(model, batch: int = 2) -> torch.Tensor:
    """Random images for a model, with more contrast in some parts and in some images."""
    torch.manual_seed(1)
    height, width = model.img_size
    contrast = F.interpolate(torch.rand(batch, 1, 4, 4), (height, width)) * torch.rand(
        batch, 1, 1, 1
    )
    return torch.randn(batch, 3, height, width) * contrast
