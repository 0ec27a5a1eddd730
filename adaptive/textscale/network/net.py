"""The network: where text is, where words end, and how large they are.

After Richardson et al. 2020 (arXiv:1907.12122): a segmentation network with one more channel, that
says the scale of the text at each place; the architecture and all constants are ours. The pyramid
is that of differentiable binarisation (Liao et al. 2020, arXiv:1911.08947): features of all strides
joined at stride 4.

Shapes: B images, H x W pixels, h x w = H/4 x W/4 cells, C channels, 3 outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from adaptive.core.errors import UserError
from adaptive.textscale.network.sizes import SIZES, NetSize

STRIDE = 4
"""Pixels of the input for each cell of the output, along each side."""

MULTIPLE = 32
"""What sides of the input must be multiples of."""

TEXT, BORDER, SCALE = 0, 1, 2
"""Channels of the output."""

RARE = -2.2
"""Logit of one cell in ten: training begins there, not with text everywhere."""


class TextNet(nn.Module):
    """Predicts maps of text from RGB images.

    Args:
        size: a name in ``SIZES``, or a size of your own.
        pretrained: start the backbone from timm's weights, which are downloaded.

    Raises:
        UserError: an unknown size, a backbone that timm does not have or that has no features at
            strides 4, 8, 16 and 32, or weights that cannot be had.
    """

    mean_311: Tensor
    std_311: Tensor

    def __init__(self, size: str | NetSize = "small", pretrained: bool = False):
        super().__init__()
        self.size = SIZES[size] if isinstance(size, str) else size
        self.backbone = _backbone(self.size.backbone, pretrained)
        width = self.size.channels
        self.neck = Pyramid(self.backbone.feature_info.channels(), width)
        self.head = nn.Sequential(_convolution(width, width, 3), nn.Conv2d(width, 3, 1))
        last: Any = self.head[-1]
        nn.init.normal_(last.weight, std=0.01)
        last.bias.data = torch.tensor([RARE, RARE, 0.0])
        # Of ImageNet, which timm's weights were trained with.
        self.register_buffer("mean_311", _channels(0.485, 0.456, 0.406), persistent=False)
        self.register_buffer("std_311", _channels(0.229, 0.224, 0.225), persistent=False)

    def forward(self, image_B3HW: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        """Maps at stride 4.

        Args:
            image_B3HW: RGB in [0, 1]; H and W multiples of 32.

        Returns:
            Channel ``TEXT``: logit that the cell lies in the core of a word; ``BORDER``: logit that
            it lies near a word's outline; ``SCALE``: ``ln(s / 32)``, where s is the short side, in
            pixels of the input, of the word's smallest rectangle.
        """
        x_B3HW = (image_B3HW - self.mean_311) / self.std_311
        return self.head(self.neck(self.backbone(x_B3HW)))


class Pyramid(nn.Module):
    """Features of all strides, told what the coarser ones see, side by side at the finest.

    Args:
        widths: channels of the features, fine to coarse, each at half the resolution of the last.
        channels: of the result, a multiple of the number of features.
    """

    def __init__(self, widths: list[int], channels: int):
        super().__init__()
        share = channels // len(widths)
        self.lateral = nn.ModuleList(_convolution(width, channels, 1) for width in widths)
        self.narrow = nn.ModuleList(_light(channels, share) for _ in widths)

    def forward(self, features: list[Tensor]) -> Float[Tensor, "B C h w"]:
        """[B, channels, h, w], h x w of the finest of the features."""
        above, parts = None, []
        layers = zip(features, self.lateral, self.narrow, strict=True)
        for level, (x_BChw, lateral, narrow) in reversed(list(enumerate(layers))):
            x_BChw = lateral(x_BChw)
            if above is not None:
                x_BChw = x_BChw + functional.interpolate(above, scale_factor=2.0)
            above = x_BChw
            part = narrow(x_BChw)
            if level:
                # Smooth, or large words would have outlines in steps.
                part = functional.interpolate(part, scale_factor=float(2**level), mode="bilinear")
            parts.append(part)
        return torch.cat(parts, 1)


def _backbone(name: str, pretrained: bool) -> Any:
    import timm

    try:
        found = timm.create_model(name, features_only=True, pretrained=pretrained)
        strides = found.feature_info.reduction()
        wanted = [strides.index(stride) for stride in (4, 8, 16, 32)]
        if len(wanted) < len(strides):
            found = timm.create_model(
                name, features_only=True, out_indices=wanted, pretrained=pretrained
            )
    except (RuntimeError, ValueError, OSError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the backbone {name!r} of the text network cannot be made ({reason}): name one of "
            "timm's with features at strides 4, 8, 16 and 32"
        ) from None
    return found


def _convolution(width: int, channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


def _light(width: int, channels: int) -> nn.Sequential:
    """Each channel by itself over 3 x 3 cells, then all channels of each cell."""
    alone = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
    return nn.Sequential(alone, nn.BatchNorm2d(width), *_convolution(width, channels, 1))


def _channels(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None]
