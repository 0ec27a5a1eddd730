"""Regions are split where their entropy exceeds a threshold, so images differ in tokens.

In the spirit of Adaptive Patch Transformers (APT, ICLR 2026): a threshold and not a budget decides,
and the images of a batch, of different lengths, are packed.

Shapes: B images, S nodes that may split, K classes.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.solvers.quadtree import RaggedLeaves, batch_leaves, split_order
from adaptive.quadformer.baselines.registry import BASELINES
from adaptive.quadformer.model import Prior, Quadformer


@BASELINES.register("entropy")
class Entropy(Quadformer):
    """A ViT over the leaves that are left when no node above the threshold is.

    Args:
        vit: a plain timm ViT.
        prior: what the threshold is of.
        threshold: of the prior's scores; None: for each batch the one at which its images have
            ``num_tokens`` patches on average. A batch of one image then has just as many.
        num_tokens: patches of an image on average where there is no threshold, or a call asks for
            a number; None: the full grid.
        **options: of :class:`~adaptive.quadformer.model.Quadformer`, such as ``detail``.

    Raises:
        UserError: as for Quadformer, or both a threshold and a number.
    """

    def __init__(
        self,
        vit: nn.Module,
        *,
        prior: str | Prior = "entropy",
        threshold: float | None = None,
        num_tokens: int | None = None,
        **options: Any,
    ):
        if threshold is not None and num_tokens is not None:
            raise UserError(
                f"threshold={threshold} decides on the number of tokens itself: leave num_tokens "
                "out, or the threshold"
            )
        super().__init__(vit, prior=prior, num_tokens=num_tokens, **options)
        self.threshold = threshold

    def check_tokens(self, num_tokens: int) -> None:
        """An average over images need not be what a single quadtree can have.

        Raises:
            UserError: a number out of range.
        """
        roots, cells = self.geometry.roots, self.geometry.cells
        if not roots <= num_tokens <= cells:
            raise UserError(f"num_tokens={num_tokens} is out of range: choose {roots} to {cells}")

    def divide(
        self, image_BCHW: Float[Tensor, "B 3 H W"], num_tokens: int | None = None
    ) -> RaggedLeaves:
        """The leaves at the threshold, or at that which gives the number on average.

        Splits add three patches each, so the batch's total is the nearest one that they can reach.
        """
        self.check_image(image_BCHW)
        geometry, score_BS = self.geometry, self.score(image_BCHW)
        if self.threshold is not None and num_tokens is None:
            return split_order(score_BS, geometry).above(self.threshold)
        least = image_BCHW.shape[0] * geometry.roots
        splits = round((image_BCHW.shape[0] * self.tokens(num_tokens) - least) / 3)
        return batch_leaves(score_BS, geometry, least + 3 * splits)

    def forward(
        self,
        image_BCHW: Float[Tensor, "B 3 H W"],
        num_tokens: int | None = None,
        leaves: Any = None,
    ) -> Tensor:
        """Logits of normalised images, [B, K]."""
        if leaves is None:
            leaves = self.divide(image_BCHW, num_tokens)
        return super().forward(image_BCHW, leaves=leaves)

    def gmacs(self, num_tokens: int | None = None) -> float:
        """Billions of multiply-accumulates for an image with the average number of patches.

        Attention's share grows with the square, so images that differ cost a little more.
        """
        return super().gmacs(num_tokens)
