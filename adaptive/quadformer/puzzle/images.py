"""Which training images a run looks at, and when.

Shapes: B images, C channels, H x W pixels; N images of a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.normalise import Normalise
from adaptive.core.run import stage_seed
from adaptive.quadformer.data import Batches, ImageSet, Mix, Prepare
from adaptive.quadformer.settings import AugmentConfig


@dataclass(frozen=True)
class Parts:
    """Numbers of the training images: to score on, to hold out, and to learn from.

    Attributes:
        score, held, learn: disjoint, in random order.
    """

    score: Tensor
    held: Tensor
    learn: Tensor

    @staticmethod
    def of(count: int, score: int, held: int, seed: int) -> Parts:
        """Of a set of so many images.

        Raises:
            UserError: nothing would be left to learn from.
        """
        if score + held >= count:
            raise UserError(
                f"score.images={score} and library.held_out={held} leave nothing of the {count} "
                "images of data.train to learn from: lower them"
            )
        generator = torch.Generator().manual_seed(stage_seed(seed, "parts"))
        order_N = torch.randperm(count, generator=generator)
        return Parts(order_N[:score], order_N[score : score + held], order_N[score + held :])


def plain_batches(
    images: ImageSet, index_N: Tensor, batch: int, model: nn.Module
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images [B, C, H, W] and labels [B], as they are, in order.

    Args:
        images: the set.
        index_N: numbers of those wanted.
        batch: images at a time.
        model: that normalisation is for.
    """
    normalise = Normalise.of(model, str(images.label_N.device))
    for index_B in index_N.split(batch):
        pixel_B3HW, label_B = images.batch(index_B)
        yield normalise(pixel_B3HW.float() / 255), label_B


class Augmented:
    """Batches of augmented images, a function of the seed and the step.

    Args:
        images: the set.
        index_N: numbers of those to draw from.
        batch: images of a step, at most.
        model: that normalisation is for.
        config: of augmentation; images are not mixed, as there are no labels.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        images: ImageSet,
        index_N: Tensor,
        batch: int,
        model: nn.Module,
        config: AugmentConfig,
        seed: int,
    ):
        self.images, self.index_N = images, index_N
        self.device = str(images.label_N.device)
        self.batches = Batches(len(index_N), min(batch, len(index_N)), seed)
        self._prepare = Prepare(config, Normalise.of(model, self.device))

    def __call__(self, step: int) -> Tensor:
        """Normalised images of a step, [B, C, H, W]."""
        pixel_B3HW, _ = self.images.batch(self.index_N[self.batches.indices(step)])
        generator = self.batches.generator(step, self.device)
        return self._prepare(pixel_B3HW, generator, Mix())[0]
