"""Photographs have their subject in the middle.

Shapes: B images, h and w of the finest grid.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.prior.base import PRIORS, MapPrior
from adaptive.core.solvers.quadtree.geometry import Geometry


@PRIORS.register("centre")
class CentrePrior(MapPrior):
    """A Gaussian about the image's centre, whatever it shows: the baseline of content priors.

    Args:
        sigma: its standard deviation, where 1 is the distance from the centre to a side.
    """

    def __init__(self, *, sigma: float = 0.5, alpha: float | None = None):
        super().__init__(alpha=alpha)
        if not sigma > 0:
            raise UserError(f"centre(sigma={sigma}) must be above 0, such as 0.5")
        self.sigma = sigma

    def saliency(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B h w"]:
        rows, cols = geometry.grid
        down_h, across_w = self._profile(rows, image_BCHW), self._profile(cols, image_BCHW)
        return (down_h[:, None] * across_w).expand(image_BCHW.shape[0], -1, -1)

    def _profile(self, size: int, like: Tensor) -> Tensor:
        """The Gaussian at the middles of the cells along one side."""
        # Whole numbers up to the division: both halves get the same values.
        place = (2 * torch.arange(size, device=like.device) + 1 - size) / size
        return torch.exp(-place.square() / (2 * self.sigma**2))
