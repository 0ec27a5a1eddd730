"""Entropy of grey levels.

Shapes: B images, H and W pixels, R rows and K columns of nodes, N pixels of a node, Q bins.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.prior.area import over_children
from adaptive.core.prior.base import PRIORS, Prior
from adaptive.core.prior.grey import grey
from adaptive.core.solvers.quadtree.geometry import Geometry


@PRIORS.register("entropy")
class EntropyPrior(Prior):
    """Entropy of a node's grey levels in bits; alpha is 0, since thresholds compare entropies.

    Conventions of APT (arXiv:2510.18091): luma in bytes, 512 bins over [0, 256), so that grey
    levels between two bytes count as different, and logarithms to base 2. APT keeps a coarse patch
    whose entropy lies below a threshold: ``split_order(...).above(threshold)`` of these scores.

    Args:
        bins: of the histogram over all grey levels. A histogram of a node of the finest level that
            may split takes as much memory as so many float32 pixels.
    """

    alpha = 0.0

    def __init__(self, *, bins: int = 512, alpha: float | None = None):
        super().__init__(alpha=alpha)
        if bins < 2:
            raise UserError(f"entropy(bins={bins}) needs at least 2 bins")
        self.bins = bins

    def density(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> list[Float[Tensor, "B _ _"]]:
        share_BRKQ = self._histograms(grey(image_BCHW), geometry)
        levels = [_bits(share_BRKQ)]
        for _ in geometry.shapes[:-2]:
            share_BRKQ = over_children(share_BRKQ).mean((2, 4))
            levels.insert(0, _bits(share_BRKQ))
        return levels

    def _histograms(self, grey_BHW: Tensor, geometry: Geometry) -> Tensor:
        """Share of each bin in the nodes of the finest level that may split, [B, R, K, Q]."""
        (rows, cols), side = geometry.shapes[-2], geometry.sides[-2]
        bin_BHW = (grey_BHW * (255 * self.bins / 256)).long().clamp(0, self.bins - 1)
        bin_BRNKN = bin_BHW.view(-1, rows, side, cols, side)
        bin_BRKN = bin_BRNKN.transpose(2, 3).flatten(3)
        empty_BRKQ = grey_BHW.new_zeros(grey_BHW.shape[0], rows, cols, self.bins)
        ones_BRKN = grey_BHW.new_ones(()).expand(bin_BRKN.shape)
        return empty_BRKQ.scatter_add(3, bin_BRKN, ones_BRKN) / side**2


def _bits(share_BRKQ: Tensor) -> Tensor:
    return torch.special.entr(share_BRKQ).sum(3) / math.log(2)
