"""Three zooms by the size of what is in a region, packed into one canvas.

After UFPMP-Det (Huang et al. 2022, arXiv:2112.10415): clusters of coarse detections are enlarged by
one of a few factors, chosen by their mean box size, and packed into a mosaic for one second pass.
There is no budget, and no region keeps what the first pass found.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.textscale.baselines.registry import BASELINES, Baseline, Counted, chips_of, read_chips
from adaptive.textscale.detector import Detector, Mapper
from adaptive.textscale.first_look import first_look, pass1_side
from adaptive.textscale.packing import pack
from adaptive.textscale.settings import AdaptConfig
from adaptive.textscale.words import CANONICAL


@BASELINES.register("three_zooms")
def three_zooms(
    detector: Detector,
    mapper: Mapper,
    config: AdaptConfig,
    *,
    zooms: tuple[float, float, float] = (1.0, 2.0, 3.0),
) -> Baseline:
    """Each region at the zoom that brings its text nearest to the canonical height."""

    def run(image_HW3: UInt8[ndarray, "H W 3"]) -> Counted:
        H, W = image_HW3.shape[:2]
        look = first_look(mapper, image_HW3, pass1_side(W, H, config, np.inf) or 1, config)
        box_N4, log_N = look.regions.padded_R4, np.log(CANONICAL / look.regions.scale_R)
        zoom_N = np.array(zooms)[np.abs(log_N[:, None] - np.log(zooms)).argmin(1)]
        side_N2 = box_N4[:, 2:] - box_N4[:, :2]
        largest = config.max_side // config.stride * config.stride
        zoom_N = np.minimum(zoom_N, largest / side_N2.max(1, initial=1))
        size_N2 = np.clip(np.rint(side_N2 * zoom_N[:, None]).astype(int), 1, largest)
        packing = pack(
            size_N2,
            stride=config.stride,
            gutter=config.gutter,
            max_side=config.max_side,
            max_pixels=config.max_pixels,
        )
        found = read_chips(detector, image_HW3, chips_of(box_N4, size_N2), packing, config)
        return Counted(found.detections, found.pixels + look.pixels)

    return run
