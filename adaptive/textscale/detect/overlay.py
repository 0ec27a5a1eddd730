"""Pictures of what was found and why.

Shapes: H x W pixels, N words, R regions.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.core.report import pictures
from adaptive.textscale.canvas import resized
from adaptive.textscale.regions import Regions
from adaptive.textscale.words import Detections

LEGEND = {
    "words": pictures.FOUND,
    "regions that were looked at again": pictures.LOOKED,
    "other regions": pictures.LEFT,
}
WORD, LOOKED, SKIPPED = (tuple(bytes.fromhex(colour[1:])) for colour in LEGEND.values())
_LONGEST = 1600  # side in pixels of a picture


def overlay(
    image_HW3: UInt8[ndarray, "H W 3"],
    found: Detections,
    regions: Regions | None = None,
    zoomed: tuple[bool, ...] = (),
) -> UInt8[ndarray, "h w 3"]:
    """The image with words in orange, regions that were looked at again in blue, others in grey.

    Args:
        image_HW3: RGB.
        found: words, in its pixels.
        regions: of pass 1; None draws none.
        zoomed: whether each region was looked at again.
    """
    H, W = image_HW3.shape[:2]
    zoom = min(1.0, _LONGEST / max(H, W))
    picture_hw3 = resized(image_HW3, max(1, round(W * zoom)), max(1, round(H * zoom))).copy()
    thick = max(1, round(max(picture_hw3.shape) / 600))
    if regions is not None:
        for box_4, again in zip(regions.padded_R4 * zoom, zoomed, strict=True):
            x0, y0, x1, y1 = np.rint(box_4).astype(int).tolist()
            cv2.rectangle(picture_hw3, (x0, y0), (x1, y1), LOOKED if again else SKIPPED, thick)
    quads = np.rint(found.quad_N42 * zoom).astype(np.int32)
    cv2.polylines(picture_hw3, list(quads), True, WORD, thick + 1, cv2.LINE_AA)
    return picture_hw3


def save_picture(picture_hw3: UInt8[ndarray, "h w 3"], path: str) -> None:
    """Writes a picture in the format of its suffix."""
    cv2.imwrite(path, picture_hw3[:, :, ::-1])
