"""Chips of what a first look suspects, all at one zoom, one input each.

After AutoFocus (Najibi et al. 2019, arXiv:1812.01600): coarse to fine with chips at the next scale
of a pyramid. Its chips are not packed, and their zoom does not depend on what is in them.
"""

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
from adaptive.textscale.first_look import first_look, pass1_side
from adaptive.textscale.settings import AdaptConfig


@BASELINES.register("fixed_zoom")
def fixed_zoom(
    detector: Detector, mapper: Mapper, config: AdaptConfig, *, zoom: float = 2.0
) -> Baseline:
    """Every region at ``zoom`` canvas pixels for each pixel of the image."""

    def run(image_HW3: UInt8[ndarray, "H W 3"]) -> Counted:
        H, W = image_HW3.shape[:2]
        side = pass1_side(W, H, config, np.inf) or 1
        look = first_look(mapper, image_HW3, side, config)
        box_N4 = look.regions.padded_R4
        size_N2 = np.maximum(1, np.rint((box_N4[:, 2:] - box_N4[:, :2]) * zoom).astype(int))
        chips = chips_of(box_N4, size_N2)
        found = read_chips(detector, image_HW3, chips, apart(size_N2, config.stride), config)
        return Counted(found.detections, found.pixels + look.pixels)

    return run
