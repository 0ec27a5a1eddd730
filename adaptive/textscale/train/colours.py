"""Light, colour, blur and noise as cameras have them.

Shapes: H x W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from numpy.random import Generator

from adaptive.textscale.train.settings import SampleConfig


def recolour(
    rng: Generator, image_HW3: UInt8[ndarray, "H W 3"], config: SampleConfig
) -> UInt8[ndarray, "H W 3"]:
    """The image under another light.

    Args:
        rng: random numbers.
        image_HW3: RGB.
        config: strengths.
    """
    contrast, light = 1 + config.colour * rng.uniform(-1, 1, 2)
    channel_3 = 1 + config.colour / 2 * rng.uniform(-1, 1, 3)
    middle = sum(cv2.mean(image_HW3)[:3]) / 3
    gain_3 = light * channel_3
    # A tenth of the time of a table of values, with the same result.
    colour_34 = np.column_stack([np.diag(contrast * gain_3), (1 - contrast) * middle * gain_3])
    image_HW3 = cv2.transform(image_HW3, colour_34)
    if rng.random() < config.blur:
        image_HW3 = cv2.GaussianBlur(image_HW3, (0, 0), rng.uniform(0.4, 1.5))
    if rng.random() < config.noise:
        # Drawn once for a tile and laid out: a fifth of the time, and as random to a network.
        tile_hw3 = rng.normal(0, rng.uniform(2, 12), (64, 64, 3))
        reps = (-(-image_HW3.shape[0] // 64), -(-image_HW3.shape[1] // 64), 1)
        noise_HW3 = np.tile(tile_hw3.astype(np.int16), reps)
        noise_HW3 = noise_HW3[: image_HW3.shape[0], : image_HW3.shape[1]]
        image_HW3 = cv2.add(image_HW3, noise_HW3, dtype=cv2.CV_8U)  # saturates
    return image_HW3
