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

WHOLE = (0.0, 1.0, 0.0, 1.0)


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed with itself in reverse order.

    Attributes:
        own: share of an image's label that stays its own.
        box: top, bottom, left and right of where images are mixed, as shares of the sides.
        blend: share of an image's pixels there that stays its own: 0 for CutMix.
    """

    own: float = 1.0
    box: tuple[float, float, float, float] = WHOLE
    blend: float = 1.0

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
            return Mix(own, WHOLE, own)
        half = (1 - own) ** 0.5 / 2
        edges = []
        for _ in range(2):
            centre = chance.random()
            for edge in (centre - half, centre + half):
                edges.append(round(min(max(edge, 0.0), 1.0) * size) / size)
        top, bottom, left, right = edges
        # The box is cut at the border, so the share follows from what it covers.
        return Mix(1 - (bottom - top) * (right - left), (top, bottom, left, right), 0.0)

    def numbers(self, device: str) -> Float[Tensor, 5]:
        """What :func:`mixed` needs of it, on a device: the box and the blend.

        As a tensor, for a compiler would make a program of every number.
        """
        found_5 = torch.tensor([*self.box, self.blend], pin_memory=device.startswith("cuda"))
        return found_5.to(device, non_blocking=True)

    def labels(
        self, label_B: Int[Tensor, " B"], classes: int, smoothing: float
    ) -> Float[Tensor, "B K"]:
        """Soft labels: smoothed over all classes, then mixed as the images."""
        target_BK = functional.one_hot(label_B, classes).float()
        target_BK = target_BK * (1 - smoothing) + smoothing / classes
        return torch.lerp(target_BK.flip(0), target_BK, self.own)


def mixed(
    image_BCHW: Float[Tensor, "B C H W"], mix_5: Float[Tensor, 5]
) -> Float[Tensor, "B C H W"]:
    """Mixed images, or maps, of any resolution.

    Args:
        image_BCHW: of one process's batch.
        mix_5: of :meth:`Mix.numbers`.
    """
    top, bottom, left, right, blend = mix_5.unbind()
    row_H1, column_W = (_centres(side, image_BCHW.device) for side in image_BCHW.shape[2:])
    row_H1 = row_H1[:, None]
    inside_HW = (row_H1 > top) & (row_H1 < bottom) & (column_W > left) & (column_W < right)
    own_HW = torch.where(inside_HW, blend, 1.0)
    return torch.lerp(image_BCHW.flip(0), image_BCHW, own_HW)


def _centres(side: int, device: torch.device) -> Tensor:
    """Places of the pixels' centres along a side, as shares of it."""
    return (torch.arange(side, device=device) + 0.5) / side
