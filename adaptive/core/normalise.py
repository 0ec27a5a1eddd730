"""Images as networks take them, and as priors read them.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Normalise:
    """From images in [0, 1] to what a network was trained on.

    Attributes:
        mean_C11, std_C11: of the channels, on the images' device.
    """

    mean_C11: Float[Tensor, "C 1 1"]
    std_C11: Float[Tensor, "C 1 1"]

    @staticmethod
    def of(model: nn.Module, device: torch.device | str) -> Normalise:
        """What timm states for a model of its own, or for the one that a model has as ``vit``."""
        from timm.data.config import resolve_data_config

        data = resolve_data_config({}, model=getattr(model, "vit", model))
        mean, std = (torch.tensor(data[key], device=device) for key in ("mean", "std"))
        return Normalise(mean[:, None, None], std[:, None, None])

    def __call__(self, image_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Normalised images."""
        return (image_BCHW - self.mean_C11) / self.std_C11

    def undo(self, image_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The images in [0, 1] again."""
        return image_BCHW * self.std_C11 + self.mean_C11
