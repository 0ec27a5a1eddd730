"""Mixup and CutMix: batches whose images and labels are mixed with those of the same batch.

timm's ``Mixup`` draws from NumPy's global state; here the draw is a function of the step, and a
saliency map is mixed as its image.

Shapes: B images, K classes, C channels, H x W pixels; h x w of a saliency map.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed with itself in reverse order.

    Attributes:
        own: share of an image's label that stays its own.
        box: top, bottom, left and right of what CutMix replaces, as shares of the sides; None:
            mixup blends whole images.
    """

    own: float = 1.0
    box: tuple[float, float, float, float] | None = None

    @staticmethod
    def draw(chance: random.Random, mixup: float, cutmix: float, size: int) -> Mix:
        """A random mixing; with both alphas above 0 each method is chosen half the time.

        Args:
            chance: where the draw comes from.
            mixup: alpha of mixup's Beta distribution, 0 for none.
            cutmix: alpha of CutMix's, 0 for none.
            size: side of the images in pixels, on which boxes begin and end.
        """
        cut = cutmix > 0 and (mixup == 0 or chance.random() < 0.5)
        alpha = cutmix if cut else mixup
        if alpha == 0:
            return Mix()
        own = chance.betavariate(alpha, alpha)
        if not cut:
            return Mix(own)
        half = (1 - own) ** 0.5 / 2
        edges = []
        for _ in range(2):
            centre = chance.random()
            for edge in (centre - half, centre + half):
                edges.append(round(min(max(edge, 0.0), 1.0) * size) / size)
        top, bottom, left, right = edges
        # The box is cut at the border, so the share follows from what it covers.
        return Mix(1 - (bottom - top) * (right - left), (top, bottom, left, right))

    def images(self, image_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Mixed images, or maps."""
        if self.own == 1:
            return image_BCHW
        other_BCHW = image_BCHW.flip(0)
        if self.box is None:
            return torch.lerp(other_BCHW, image_BCHW, self.own)
        height, width = image_BCHW.shape[2:]
        top, bottom = (round(edge * height) for edge in self.box[:2])
        left, right = (round(edge * width) for edge in self.box[2:])
        mixed_BCHW = image_BCHW.clone()
        mixed_BCHW[:, :, top:bottom, left:right] = other_BCHW[:, :, top:bottom, left:right]
        return mixed_BCHW

    def labels(
        self, label_B: Int[Tensor, " B"], classes: int, smoothing: float
    ) -> Float[Tensor, "B K"]:
        """Soft labels: smoothed over all classes, then mixed as the images."""
        target_BK = functional.one_hot(label_B, classes).float()
        target_BK = target_BK * (1 - smoothing) + smoothing / classes
        return torch.lerp(target_BK.flip(0), target_BK, self.own)
