"""What training minimises.

Shapes: B images, h x w cells, 3 channels of the network's output, 5 maps of the targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from adaptive.textscale.network.net import BORDER, SCALE, TEXT

HARD = 3.0
"""Background cells that are learned from, for each cell of text: the hardest ones."""

KNEE = 0.2
"""Error of the log-scale, in nats, beyond which the loss grows linearly."""


@dataclass(frozen=True)
class Losses:
    """Parts of the loss, each of one number.

    Attributes:
        text: balanced cross entropy of cores, in nats.
        overlap: dice loss of cores, 0 to 1.
        border: dice loss of outlines, 0 to 1.
        scale: smooth L1 of the log-scale, in nats.
    """

    text: Tensor
    overlap: Tensor
    border: Tensor
    scale: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum: all are of a size."""
        return self.text + self.overlap + self.border + self.scale


def losses(output_B3hw: Float[Tensor, "B 3 h w"], target_B5hw: Float[Tensor, "B 5 h w"]) -> Losses:
    """The losses of a batch.

    Args:
        output_B3hw: of the network.
        target_B5hw: :meth:`~adaptive.textscale.train.targets.Targets.stacked` of each image.
    """
    output_B3hw = output_B3hw.float()
    text_Bhw, border_Bhw, care_Bhw, scale_Bhw, share_Bhw = target_B5hw.unbind(1)
    logit_Bhw = output_B3hw[:, TEXT]
    return Losses(
        text=mined_cross_entropy(logit_Bhw, text_Bhw, care_Bhw, share_Bhw),
        overlap=dice(logit_Bhw, text_Bhw, care_Bhw),
        border=dice(output_B3hw[:, BORDER], border_Bhw, care_Bhw),
        scale=scale_error(output_B3hw[:, SCALE], scale_Bhw, share_Bhw),
    )


def mined_cross_entropy(
    logit_Bhw: Float[Tensor, "B h w"],
    text_Bhw: Float[Tensor, "B h w"],
    care_Bhw: Float[Tensor, "B h w"],
    share_Bhw: Float[Tensor, "B h w"],
) -> Float[Tensor, ""]:
    """Cross entropy in which every word weighs the same, and only hard background counts.

    After PixelLink (Deng et al. 2018, arXiv:1801.01315, section 3.4): the mean over words of their
    cells' means, and the mean over the ``HARD`` times as many background cells whose loss is the
    largest in the batch, weighed 1 to ``HARD``. Targets are shares of cells, so a loss counts from
    the least that it can be, the target's entropy: else cells half in a word were always the
    hardest. An image without text counts with a hundredth of its cells.

    Args:
        logit_Bhw: predictions.
        text_Bhw: targets in 0 to 1.
        care_Bhw: 1 where cells count.
        share_Bhw: 1 / (cells of its word) in words, else 0.
    """
    least_Bhw = functional.binary_cross_entropy(text_Bhw, text_Bhw, reduction="none")
    loss_Bhw = functional.binary_cross_entropy_with_logits(logit_Bhw, text_Bhw, reduction="none")
    loss_Bhw = loss_Bhw - least_Bhw
    inside_Bhw = share_Bhw > 0
    words = share_Bhw.sum().clamp(min=1)
    of_text = (loss_Bhw * share_Bhw).sum() / words
    outside_Bhw = (care_Bhw > 0) & ~inside_Bhw
    floor = 0.01 * logit_Bhw.numel()
    wanted = (HARD * inside_Bhw.sum()).clamp(min=floor).minimum(outside_Bhw.sum())
    # Sorted, not the top k: k would have to come from the device first.
    hardest = loss_Bhw.masked_fill(~outside_Bhw, -1).flatten().sort(descending=True).values
    mined = torch.arange(len(hardest), device=hardest.device) < wanted
    of_rest = (hardest * mined).sum() / wanted.clamp(min=1)
    return (of_text + HARD * of_rest) / (1 + HARD)


def dice(
    logit_Bhw: Float[Tensor, "B h w"],
    target_Bhw: Float[Tensor, "B h w"],
    care_Bhw: Float[Tensor, "B h w"],
) -> Float[Tensor, ""]:
    """1 - twice the overlap of prediction and target over the sum of both, of the whole batch."""
    predicted_Bhw, target_Bhw = logit_Bhw.sigmoid() * care_Bhw, target_Bhw * care_Bhw
    overlap = (predicted_Bhw * target_Bhw).sum()
    both = predicted_Bhw.square().sum() + target_Bhw.square().sum()
    return 1 - 2 * overlap / both.clamp(min=1e-6)


def scale_error(
    scale_Bhw: Float[Tensor, "B h w"],
    target_Bhw: Float[Tensor, "B h w"],
    share_Bhw: Float[Tensor, "B h w"],
) -> Float[Tensor, ""]:
    """Smooth L1 of the log-scale: the mean over words of their cells' means.

    A mean over cells would be that of the large words.
    """
    error_Bhw = functional.smooth_l1_loss(scale_Bhw, target_Bhw, reduction="none", beta=KNEE)
    return (error_Bhw * share_Bhw).sum() / share_Bhw.sum().clamp(min=1)
