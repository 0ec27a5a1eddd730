"""Pixel statistics: what patches of few pixels leave out of an image.

The tokenizer shows a node of any side as P x P pixels, each the mean of a block of f x f. What that
leaves out, D, is the squared error of putting the block's mean in the place of its pixels. Halving
f takes D down by the energy of the detail between two neighbours of the average-pool pyramid, so
one walk up the pyramid gives the gain of every split, with no patch ever enlarged again. Summing
squared differences, not differences of squares, keeps it exact in float32 and never negative.

Shapes: B images, C channels, H and W of a level of the pyramid, R rows and K columns of nodes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.core.prior.area import over_children
from adaptive.core.prior.base import PRIORS, Prior
from adaptive.core.solvers.quadtree.geometry import Geometry


@PRIORS.register("gain")
class GainPrior(Prior):
    """Squared error that a split takes away: that of the node less that of its four children.

    With alpha = 1 the score is that number, summed over pixels and channels, and best-first
    splitting comes within a fraction of a percent of the best tree for every budget.
    """

    def density(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> list[Float[Tensor, "B _ _"]]:
        gains = split_gains(image_BCHW, geometry)
        return [
            gain_BRK / (side // geometry.min_patch) ** 2
            for side, gain_BRK in zip(geometry.sides, gains, strict=False)
        ]


@PRIORS.register("blur")
class BlurPrior(Prior):
    """Root mean squared error of showing a node by the pixels of one patch.

    The pixel-blur scorer of Ronen et al., 2023 (arXiv:2304.00287): rmse times the patch's side,
    hence alpha = 0.5.
    """

    alpha = 0.5

    def density(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> list[Float[Tensor, "B _ _"]]:
        levels: list[Tensor] = []
        error_BRK = torch.zeros(())
        gains = split_gains(image_BCHW, geometry)
        for side, gain_BRK in zip(geometry.sides[-2::-1], gains[::-1], strict=True):
            below = over_children(error_BRK).sum((2, 4)) if levels else 0.0
            error_BRK = gain_BRK + below
            levels.insert(0, (error_BRK / (3 * side**2)).sqrt())
        return levels


def split_gains(
    image_BCHW: Float[Tensor, "B C H W"], geometry: Geometry
) -> list[Float[Tensor, "B _ _"]]:
    """Squared error that splitting each node takes away, summed over pixels and channels.

    Returns:
        [B, R, K] for each level that may split, coarse to fine.
    """
    gains: list[Tensor] = []
    patch, weight = geometry.min_patch, 1  # weight: pixels of the image behind one value
    pooled_BCHW = image_BCHW
    for rows, cols in geometry.shapes[-2::-1]:
        # Sums and differences of neighbours along one side, then along the other (Haar).
        top, bottom = pooled_BCHW[..., ::2, :], pooled_BCHW[..., 1::2, :]
        sum_, difference = top + bottom, top - bottom
        mean4_BCHW = sum_[..., ::2] + sum_[..., 1::2]
        across = sum_[..., ::2] - sum_[..., 1::2]
        down = difference[..., ::2] + difference[..., 1::2]
        twist = difference[..., ::2] - difference[..., 1::2]
        detail_BHW = (across.square() + down.square() + twist.square()).sum(1)
        blocks = detail_BHW.view(-1, rows, patch, cols, patch)
        gains.insert(0, blocks.sum((2, 4)) * (weight / 4))
        pooled_BCHW = mean4_BCHW / 4
        weight *= 4
    return gains
