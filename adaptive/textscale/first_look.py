"""Pass 1: a small copy of the image, its maps, its boxes and its regions.

Shapes: H x W pixels of an image, h x w cells of the maps.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.textscale.canvas import padded, resized
from adaptive.textscale.detector import Mapper
from adaptive.textscale.regions import Regions, find_regions
from adaptive.textscale.settings import AdaptConfig
from adaptive.textscale.words import Detections, TextMaps


@dataclass(frozen=True)
class FirstLook:
    """What pass 1 found in an image.

    Attributes:
        found: boxes in pixels of the image.
        regions: where there may be text.
        zoom: pixels of the copy for each pixel of the image, along a side.
        pixels: of the network's input, padding included.
        seconds: of the network with its boxes, and of what makes regions of its maps.
        maps: what the network said, without padding; None where regions are known otherwise.
    """

    found: Detections
    regions: Regions
    zoom: float
    pixels: int
    seconds: tuple[float, float]
    maps: TextMaps | None = None


def copy_size(width: int, height: int, side: float, stride: int) -> tuple[int, int, int]:
    """Width and height of an image's copy of a long side, and its pixels with padding."""
    zoom = min(1.0, side / max(width, height))
    w, h = max(1, round(width * zoom)), max(1, round(height * zoom))
    return w, h, math.ceil(w / stride) * math.ceil(h / stride) * stride**2


def pass1_side(width: int, height: int, config: AdaptConfig, room: float) -> int | None:
    """Long side of the copy of an image under a budget of ``room`` pixels for both passes.

    A prior that sees nothing makes the second look worthless, so the side that is set comes first,
    all of the budget if need be: pass 1 is then single-scale detection at that budget. Larger
    budgets let pass 1 grow with them. None where not even the smallest input has room.
    """
    full = max(width, height)

    def largest(side: int, pixels: float) -> int:
        # Larger copies have no fewer pixels, so the last side that fits is found by halving.
        sides = range(1, min(side, full) + 1)
        return bisect_right(
            sides, pixels, key=lambda s: copy_size(width, height, s, config.stride)[2]
        )

    most = config.max_pixels  # bounds the network's memory, whatever is asked for
    side = largest(config.pass1_side, min(room, most))
    if math.isfinite(room):
        side = max(side, largest(full, min(config.pass1_share * room, most)))
    return side or None


def first_look(
    mapper: Mapper, image_HW3: UInt8[ndarray, "H W 3"], side: int, config: AdaptConfig
) -> FirstLook:
    """Pass 1 over one image.

    Args:
        mapper: gives maps and boxes.
        image_HW3: RGB.
        side: long side of the copy.
        config: threshold and stride.
    """
    H, W = image_HW3.shape[:2]
    w, h, pixels = copy_size(W, H, side, config.stride)
    begin = time.perf_counter()
    maps = mapper.maps(padded(resized(image_HW3, w, h), config.stride))
    maps = _cropped(maps, math.ceil(w / maps.stride), math.ceil(h / maps.stride))
    found = mapper.boxes(maps)
    mapped = time.perf_counter()
    ratio = (w / W, h / H)
    regions = find_regions(maps, W, H, ratio=ratio, threshold=config.threshold)
    quad_N42 = (found.quad_N42 / np.array(ratio)).astype(np.float32)
    return FirstLook(
        Detections(quad_N42, found.score_N),
        regions,
        math.sqrt(ratio[0] * ratio[1]),
        pixels,
        (mapped - begin, time.perf_counter() - mapped),
        maps,
    )


def _cropped(maps: TextMaps, w: int, h: int) -> TextMaps:
    """Maps without the padding."""
    return TextMaps(
        maps.probability_hw[:h, :w],
        maps.log_scale_hw[:h, :w],
        maps.border_hw[:h, :w],
        maps.stride,
    )
