"""What a baseline is.

Shapes: H x W pixels of an image, N chips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from adaptive.core.registry import Registry
from adaptive.textscale.canvas import Chips, compose, restore
from adaptive.textscale.detector import Detector
from adaptive.textscale.nms import suppress
from adaptive.textscale.packing import Packing
from adaptive.textscale.settings import AdaptConfig
from adaptive.textscale.words import Detections


@dataclass(frozen=True)
class Counted:
    """Words, and what they cost.

    Attributes:
        detections: in pixels of the image.
        pixels: of all inputs of the networks, padding included.
    """

    detections: Detections
    pixels: int


Baseline = Callable[[UInt8[ndarray, "H W 3"]], Counted]

# A builder takes the detector, the mapper of pass 1, the settings of the second look and keyword
# arguments of its own, and returns a Baseline.
BASELINES: Registry[Callable[..., Baseline]] = Registry("baseline")


def read_chips(
    detector: Detector,
    image_HW3: UInt8[ndarray, "H W 3"],
    chips: Chips,
    packing: Packing,
    config: AdaptConfig,
) -> Counted:
    """Runs a detector over canvases of chips of one image; each word once."""
    found = [detector(canvas) for canvas in compose([image_HW3], chips, packing, config.gutter)]
    sizes = np.array([image_HW3.shape[1::-1]])
    detections, _ = restore(found, chips, packing, sizes)
    stays = suppress(detections.quad_N42, detections.score_N.astype(float), iou=config.iou)
    kept = Detections(detections.quad_N42[stays], detections.score_N[stays])
    return Counted(kept, packing.pixels)


def chips_of(box_N4: Int[ndarray, "N 4"], size_N2: Int[ndarray, "N 2"]) -> Chips:
    """Chips of the first and only image."""
    return Chips(np.zeros(len(box_N4), int), box_N4, size_N2)


def apart(size_N2: Int[ndarray, "N 2"], stride: int) -> Packing:
    """Each chip on a canvas of its own, padded to multiples of the stride."""
    N = len(size_N2)
    return Packing(np.arange(N), np.zeros((N, 2), int), -(-size_N2 // stride) * stride)
