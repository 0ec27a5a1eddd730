"""From the bytes of a batch to what the model is trained on, in one program.

Shapes: B images, C channels, H x W pixels, R random numbers of each; h x w of a saliency map.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from adaptive.core.normalise import Normalise
from adaptive.quadformer.data.augment import NUMBERS, augment
from adaptive.quadformer.data.mix import Mix, mixed
from adaptive.quadformer.settings import AugmentConfig


class Prepare:
    """Augments, mixes and normalises the images of a step, and takes their maps along.

    Args:
        config: of augmentation.
        normalise: of the model, on the images' device.
        compiled: whether to compile it: bytes then go in and normalised images come out, and what
            lies between is read and written as seldom as can be.
    """

    def __init__(self, config: AugmentConfig, normalise: Normalise, compiled: bool = False):
        self.config, self.normalise = config, normalise
        self.program = torch.compile(self._apply, dynamic=False) if compiled else self._apply

    def __call__(
        self,
        pixel_B3HW: UInt8[Tensor, "B 3 H W"],
        generator: Generator,
        mix: Mix,
        map_B1hw: Float[Tensor, "B 1 h w"] | None = None,
    ) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B 1 h w"] | None]:
        """Images as the model takes them, and their maps where there are some.

        Args:
            pixel_B3HW: bytes.
            generator: of their device; the same state gives the same result.
            mix: how the batch is mixed with itself.
            map_B1hw: saliency of the images.
        """
        device = pixel_B3HW.device
        u_BR = torch.rand((len(pixel_B3HW), NUMBERS), generator=generator, device=device)
        return self.program(pixel_B3HW, u_BR, mix.numbers(str(device)), map_B1hw)

    def _apply(
        self, pixel_B3HW: Tensor, u_BR: Tensor, mix_5: Tensor, map_B1hw: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        image_B3HW, map_B1hw = augment(pixel_B3HW.float() / 255, self.config, u_BR, map_B1hw)
        if map_B1hw is not None:
            map_B1hw = mixed(map_B1hw, mix_5)
        return self.normalise(mixed(image_B3HW, mix_5)), map_B1hw
