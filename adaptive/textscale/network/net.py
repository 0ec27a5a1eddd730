"""The network: where text is, where words end, and how large they are.

After Richardson et al. 2020 (arXiv:1907.12122): a segmentation network with one more channel, that
says the scale of the text at each place; the architecture and all constants are ours. The pyramid
is that of differentiable binarisation (Liao et al. 2020, arXiv:1911.08947): features of all strides
joined at stride 4. The backbone is a convolutional one of timm, or a ViT (see ``vit.py``).

Shapes: B images, H x W pixels, h x w = H/4 x W/4 cells, C channels, 3 outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from adaptive.core.errors import UserError
from adaptive.core.prior import Prior
from adaptive.core.solvers.quadtree import Geometry, Leaves
from adaptive.textscale.network.sizes import SIZES, NetSize
from adaptive.textscale.network.vit import STRIDES, VitBackbone, one_stride

STRIDE = 4
"""Pixels of the input for each cell of the output, along each side."""

MULTIPLE = 32
"""What sides of the input must be multiples of, for a convolutional backbone."""

TEXT, BORDER, SCALE = 0, 1, 2
"""Channels of the output."""

PRIOR = "backbone.vit.prior."
"""What names of the prior's weights begin with, where a ViT has one that has any."""

RARE = -2.2
"""Logit of one cell in ten: training begins there, not with text everywhere."""


class TextNet(nn.Module):
    """Predicts maps of text from RGB images.

    Args:
        size: a name in ``SIZES``, or a size of your own.
        pretrained: start the backbone from timm's weights, which are downloaded.

    Raises:
        UserError: an unknown size, a backbone that timm does not have or that is neither a ViT nor
            has features at strides 4, 8, 16 and 32, or weights that cannot be had.

    Attributes:
        share: of the tokens of the full grid that a call spends which does not say otherwise.
    """

    backbone: Any  # of timm, or VitBackbone
    mean_311: Tensor
    std_311: Tensor

    def __init__(self, size: str | NetSize = "small", pretrained: bool = False):
        super().__init__()
        self.size = SIZES[size] if isinstance(size, str) else size
        self.backbone = _backbone(self.size, pretrained)
        self.share = 1.0
        width = self.size.channels
        self.neck = Pyramid(self._widths(), width)
        self.head = nn.Sequential(_convolution(width, width, 3), nn.Conv2d(width, 3, 1))
        last: Any = self.head[-1]
        nn.init.normal_(last.weight, std=0.01)
        last.bias.data = torch.tensor([RARE, RARE, 0.0])
        # Of ImageNet, which timm's weights were trained with.
        mean_311, std_311 = _channels(0.485, 0.456, 0.406), _channels(0.229, 0.224, 0.225)
        if isinstance(self.backbone, VitBackbone):  # those of ViTs differ
            mean_311, std_311 = self.backbone.normalisation()
        self.register_buffer("mean_311", mean_311, persistent=False)
        self.register_buffer("std_311", std_311, persistent=False)

    @property
    def multiple(self) -> int:
        """What sides of the input must be multiples of, in pixels."""
        return self.backbone.multiple if isinstance(self.backbone, VitBackbone) else MULTIPLE

    @property
    def spends_tokens(self) -> bool:
        """Whether the backbone can spend fewer tokens than its grid has patches."""
        return isinstance(self.backbone, VitBackbone) and self.backbone.spends_tokens

    def geometry(self, height: int, width: int) -> Geometry:
        """The quadtrees of an input of these sides, in pixels.

        Raises:
            UserError: a backbone that does not spend tokens, or sides that do not tile.
        """
        self._check_tokens()
        return self.backbone.geometry(height, width)

    def spend(self, share: float, prior: str | Prior | None = None) -> TextNet:
        """Sets what calls spend that do not say otherwise, and where.

        Args:
            share: of the tokens of the full grid, above 0 to 1.
            prior: an expression of :func:`~adaptive.core.prior.build_prior`, or a prior; it is
                frozen, and no part of the weights that are saved. None: as it was.

        Raises:
            UserError: a share out of range, an unknown prior, or a backbone without a choice.
        """
        if not 0 < share <= 1:
            raise UserError(f"a share of {share} of the tokens: give one above 0 to 1, such as 0.5")
        if share < 1 or prior is not None:
            self._check_tokens()
        if prior is not None:
            self.backbone.set_prior(prior)
        self.share = share
        return self

    def forward(
        self,
        image_B3HW: Float[Tensor, "B 3 H W"],
        share: float | None = None,
        leaves: Leaves | None = None,
    ) -> Float[Tensor, "B 3 h w"]:
        """Maps at stride 4.

        Args:
            image_B3HW: RGB in [0, 1]; H and W multiples of ``multiple``.
            share: of the tokens of the full grid; None: as the network is set.
            leaves: patches to spend tokens on, instead of those that the prior would choose.

        Returns:
            Channel ``TEXT``: logit that the cell lies in the core of a word; ``BORDER``: logit that
            it lies near a word's outline; ``SCALE``: ``ln(s / 32)``, where s is the short side, in
            pixels of the input, of the word's smallest rectangle.
        """
        x_B3HW = (image_B3HW - self.mean_311) / self.std_311
        share = self.share if share is None else share
        if share == 1 and leaves is None:
            return self.head(self.neck(self.backbone(x_B3HW)))
        self._check_tokens()
        return self.head(self.neck(self.backbone(x_B3HW, share, leaves)))

    def weights(self) -> dict[str, Tensor]:
        """The network's own parameters and buffers: its state without the prior's."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(PRIOR)}

    def _widths(self) -> list[int]:
        if isinstance(self.backbone, VitBackbone):
            return self.backbone.widths
        return self.backbone.feature_info.channels()

    def _check_tokens(self) -> None:
        if not self.spends_tokens:
            raise UserError(
                f"the backbone {self.size.backbone!r} of the text network has no choice of tokens: "
                "take one that has, such as net.size=vit, or leave share at 1"
            )


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


def _backbone(size: NetSize, pretrained: bool) -> Any:
    import timm

    name = size.backbone
    settings: dict[str, Any] = {} if size.patch is None else {"patch_size": size.patch}
    try:
        with torch.device("meta"):  # what it is, without its weights
            stride = one_stride(timm.create_model(name, num_classes=0, **settings))
        if stride is not None:
            return VitBackbone(name, pretrained, size.patch)
        found: Any = timm.create_model(name, features_only=True, pretrained=pretrained, **settings)
        strides = found.feature_info.reduction()
        wanted = [strides.index(stride) for stride in STRIDES]
        if len(wanted) < len(strides):
            found = timm.create_model(
                name, features_only=True, out_indices=wanted, pretrained=pretrained, **settings
            )
    except UserError:
        raise  # says itself what is wrong; it is a ValueError, too
    except (RuntimeError, ValueError, OSError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the backbone {name!r} of the text network cannot be made ({reason}): name one of "
            "timm's with features at strides 4, 8, 16 and 32, or a plain ViT"
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
