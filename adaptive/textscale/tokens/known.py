"""A prior that knows the words: the ceiling of what a prior of text can be.

Shapes: B images, S nodes that may split.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.prior import GainPrior, Prior
from adaptive.core.prior.area import split_levels
from adaptive.core.solvers.quadtree import Geometry
from adaptive.textscale.tokens.coverage import Needs
from adaptive.textscale.words import Words

REST = 1e-3
"""What all of the rest is worth, in words: it only breaks ties."""


class KnownWords(Prior):
    """Splits what :meth:`~adaptive.textscale.tokens.coverage.Needs.worth_S` finds worth most.

    Tokens that no word needs go where pixel gain would spend them.

    Args:
        legible: height in pixels at which a word must be shown.

    Attributes:
        words: those of the next image, in its pixels; its batch has that image alone.
    """

    alpha = 0.0
    words: Words | None = None

    def __init__(self, *, legible: float):
        super().__init__()
        self.legible, self.rest = legible, GainPrior()

    def density(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> list[Float[Tensor, "B _ _"]]:
        if self.words is None or image_BCHW.shape[0] != 1:
            raise UserError("a prior that knows the words needs one image and prior.words of it")
        worth_S = Needs.of(self.words, geometry, self.legible).worth_S()
        gain_BS = self.rest(image_BCHW, geometry)
        # Below what any word is worth: one that needed every split of an image would add 1 / S.
        rest_BS = gain_BS / gain_BS.max().clamp(min=1e-12) * (REST / geometry.splittable)
        return split_levels(torch.from_numpy(worth_S).to(gain_BS)[None] + rest_BS, geometry)
