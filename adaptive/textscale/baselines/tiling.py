"""Uniform tiles with overlap over all of the image, as slicing libraries lay them."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.textscale.baselines.registry import (
    BASELINES,
    Baseline,
    Counted,
    apart,
    chips_of,
    read_chips,
)
from adaptive.textscale.detector import Detector, Mapper
from adaptive.textscale.settings import AdaptConfig


@BASELINES.register("tiling")
def tiling(
    detector: Detector,
    mapper: Mapper,
    config: AdaptConfig,
    *,
    tile: int = 640,
    overlap: float = 0.2,
    zoom: float = 1.0,
) -> Baseline:
    """Tiles of ``tile`` input pixels a side, neighbours sharing a part ``overlap``, at one zoom."""

    def run(image_HW3: UInt8[ndarray, "H W 3"]) -> Counted:
        H, W = image_HW3.shape[:2]
        side = tile / zoom
        xs, ys = (_spans(length, side, overlap) for length in (W, H))
        box_N4 = np.array([(x0, y0, x1, y1) for y0, y1 in ys for x0, x1 in xs])
        size_N2 = np.maximum(1, np.rint((box_N4[:, 2:] - box_N4[:, :2]) * zoom).astype(int))
        chips = chips_of(box_N4, size_N2)
        return read_chips(detector, image_HW3, chips, apart(size_N2, config.stride), config)

    return run


def _spans(length: int, side: float, overlap: float) -> list[tuple[int, int]]:
    """Begin and end of the tiles along an axis: as few as overlap enough, evenly spread."""
    if length <= side:
        return [(0, length)]
    count = int(np.ceil((length - side) / (side * (1 - overlap)))) + 1
    starts = np.linspace(0, length - side, count).round().astype(int)
    return [(int(start), min(length, int(start + side))) for start in starts]
