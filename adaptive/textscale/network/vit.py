"""A ViT as the backbone of the text network: maps at four strides from the one that it has.

The pyramid is the simple one of ViTDet (Li et al. 2022, arXiv:2203.16527, section 3): the last map
alone, brought to strides 4, 8, 16 and 32 by transposed convolutions and pooling.

A ViT may spend fewer tokens than its grid has patches. What it needs for that is a ``geometry`` of
quadtrees, ``set_prior`` and, in ``forward_intermediates``, the arguments ``num_tokens`` and
``leaves``, as any model may have that a package registers with timm; which one it is matters not.

Shapes: B images, H x W pixels, D width, h x w of a map.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.normalise import Normalise
from adaptive.core.prior import Prior
from adaptive.core.solvers.quadtree import Geometry, Leaves

STRIDES = (4, 8, 16, 32)
"""Of the maps that the network's pyramid is made of."""


class VitBackbone(nn.Module):
    """Maps at strides 4, 8, 16 and 32 from a ViT.

    Args:
        name: of a ViT in timm that takes ``dynamic_img_size``.
        pretrained: start from timm's weights, which are downloaded.
        patch: side of the finest patches in pixels; None: the model's own.

    Raises:
        UserError: patches whose side is no stride of the pyramid.
    """

    vit: Any  # of timm, whose attributes nn.Module hides

    def __init__(self, name: str, pretrained: bool = False, patch: int | None = None):
        super().__init__()
        import timm

        settings: dict[str, Any] = {} if patch is None else {"patch_size": patch}
        # The detector's images have any sides, and it has no classes.
        self.vit = timm.create_model(
            name, pretrained=pretrained, num_classes=0, dynamic_img_size=True, **settings
        )
        stride = one_stride(self.vit)
        if stride not in STRIDES:
            raise UserError(
                f"the backbone {name!r} of the text network has patches of {stride} pixels: choose "
                f"one of {', '.join(map(str, STRIDES))}, by its name or as the size's patch"
            )
        width: Any = self.vit.num_features
        self.patch: int = stride
        self.widths = [width // max(1, stride // target) for target in STRIDES]
        self.levels = nn.ModuleList(_level(width, stride, target) for target in STRIDES)

    @property
    def spends_tokens(self) -> bool:
        """Whether fewer tokens than patches can be spent."""
        return hasattr(self.vit, "geometry")

    @property
    def multiple(self) -> int:
        """What sides of images must be multiples of, in pixels."""
        roots = self.vit.geometry.max_patch if self.spends_tokens else self.patch
        return math.lcm(roots, STRIDES[-1])

    def geometry(self, height: int, width: int) -> Geometry:
        """The quadtrees of an image of these sides.

        Raises:
            UserError: a ViT that spends a token on every patch, or sides that do not tile.
        """
        if not self.spends_tokens:
            raise UserError(
                "this text network has a token for every patch: choose a backbone that can spend "
                "fewer, such as net.size=vit"
            )
        return replace(self.vit.geometry, height=height, width=width)

    def set_prior(self, prior: str | Prior) -> None:
        """Decides where tokens are spent.

        Args:
            prior: an expression of :func:`~adaptive.core.prior.build_prior`, or a prior.
        """
        if not isinstance(prior, str):  # else the ViT makes it where it is itself
            prior = prior.to(next(self.parameters()).device)
        self.vit.set_prior(prior)

    def forward(
        self,
        image_B3HW: Float[Tensor, "B 3 H W"],
        share: float = 1.0,
        leaves: Leaves | None = None,
    ) -> list[Float[Tensor, "B _ _ _"]]:
        """Maps of all strides, fine to coarse.

        Args:
            image_B3HW: normalised as the ViT has it, with sides that are multiples of ``multiple``.
            share: of the tokens of the full grid; the nearest feasible number is spent.
            leaves: instead of those that the prior would choose.
        """
        given: dict[str, Any] = {}
        if leaves is not None:
            given["leaves"] = leaves
        elif share < 1:
            geometry = self.geometry(*image_B3HW.shape[2:])
            given["num_tokens"] = geometry.nearest(share * geometry.cells)
        (map_BDhw,) = self.vit.forward_intermediates(
            image_B3HW, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True, **given
        )
        return [level(map_BDhw) for level in self.levels]

    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the channels that the ViT was made for, [3, 1, 1]."""
        found = Normalise.of(self.vit, torch.get_default_device())
        return found.mean_C11, found.std_C11


def one_stride(model: Any) -> int | None:
    """The stride in pixels that all features of a model have; None where they differ."""
    info = getattr(model, "feature_info", None)
    if not isinstance(info, list) or not hasattr(model, "forward_intermediates"):
        return None
    strides = {each["reduction"] for each in info}
    return int(strides.pop()) if len(strides) == 1 else None


def _level(width: int, stride: int, target: int) -> nn.Module:
    """Brings a map of one stride to another; each doubling of its sides halves the channels."""
    from timm.layers import LayerNorm2d

    if target >= stride:
        factor = target // stride
        return nn.MaxPool2d(factor) if factor > 1 else nn.Identity()
    layers: list[nn.Module] = []
    while stride > target:
        layers += [LayerNorm2d(width), nn.GELU()] if layers else []
        layers.append(nn.ConvTranspose2d(width, width // 2, 2, 2))
        width, stride = width // 2, stride // 2
    return nn.Sequential(*layers)
