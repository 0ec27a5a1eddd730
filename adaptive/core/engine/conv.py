"""Convolutions of vision models.

Shapes: B images, C and O channels in and out, Y and X pixels, P numbers of a patch.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from adaptive.core.cost.vision import Conv2d


class ConvModule(nn.Module):
    """A convolution, with a ReLU where it has a batch norm.

    The norm is folded into the convolution, as for inference: its scale into the weights, its
    shift into the bias. So there is one number a channel where the shape counts a scale, a shift
    and, before them, a bias.
    """

    def __init__(self, block: Conv2d, fp8: bool, like: torch.Tensor):
        super().__init__()
        # An even kernel that keeps the map's size needs one more pixel on one side.
        self.uneven = block.stride == 1 and block.kernel % 2 == 0
        padding = max(block.kernel - block.stride + 1 - self.uneven, 0) // 2
        conv = nn.Conv2d(
            block.inputs,
            block.outputs,
            block.kernel,
            block.stride,
            padding,
            groups=block.groups,
            bias=block.bias or block.norm,
        )
        self.relu = block.norm
        # cuDNN takes another kernel for every map, up to ten times as slow as the product.
        self.patches = block.kernel == block.stride > 1 and block.groups == 1
        conv.requires_grad_(False).to(like.device, like.dtype)
        conv.weight.data = conv.weight.to(memory_format=torch.channels_last)
        self.conv = conv

    def forward(self, x_BCYX: torch.Tensor) -> torch.Tensor:
        if self.patches:
            y_BCYX = self._embed(x_BCYX)
        else:
            y_BCYX = self.conv(F.pad(x_BCYX, (0, 1, 0, 1)) if self.uneven else x_BCYX)
        return F.relu(y_BCYX) if self.relu else y_BCYX

    def _embed(self, x_BCYX: torch.Tensor) -> torch.Tensor:
        """A convolution whose patches do not overlap, as one matrix product."""
        side, weight_OCYX = self.conv.stride[0], self.conv.weight
        rows, columns = (pixels // side for pixels in x_BCYX.shape[2:])
        x_BYXC = x_BCYX[:, :, : rows * side, : columns * side].permute(0, 2, 3, 1)
        split = x_BYXC.unflatten(2, (columns, side)).unflatten(1, (rows, side))
        patches_BYXP = split.transpose(2, 3).flatten(3)
        weight_OP = weight_OCYX.permute(0, 2, 3, 1).flatten(1)
        return F.linear(patches_BYXP, weight_OP, self.conv.bias).permute(0, 3, 1, 2)
