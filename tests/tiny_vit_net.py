"""A text network on a ViT of 32 channels that spends its tokens where it is told.

The ViT is registered with timm as another package would do it.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models import register_model
from torch import nn

from adaptive.quadformer import Quadformer
from adaptive.textscale.network import NetSize, TextNet


@register_model
def tiny_plain(pretrained: bool = False, **settings: Any) -> nn.Module:
    """Patches of 8 pixels."""
    for key in ("pretrained_cfg", "pretrained_cfg_overlay"):
        settings.pop(key, None)
    small = {"embed_dim": 32, "num_heads": 2, "depth": 2, "img_size": 64, "patch_size": 8}
    return timm.create_model("vit_tiny_patch16_224", **(small | settings))


@register_model
def tiny_tokens(pretrained: bool = False, **settings: Any) -> nn.Module:
    """The same ViT with patches of 8 to 32 pixels."""
    return Quadformer(tiny_plain(**settings))


SIZE = NetSize("tiny_tokens", 16)


def make_vit_net(size: NetSize = SIZE, seed: int = 0) -> TextNet:
    """Untrained, in evaluation mode."""
    torch.manual_seed(seed)
    return TextNet(size).eval()
