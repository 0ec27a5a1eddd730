"""One look at the whole image at one size, as OCR tools take it."""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray

from adaptive.textscale.baselines.registry import BASELINES, Baseline, Counted
from adaptive.textscale.canvas import padded, resized
from adaptive.textscale.detector import Detector, Mapper
from adaptive.textscale.settings import AdaptConfig
from adaptive.textscale.words import Detections


@BASELINES.register("single")
def single(detector: Detector, mapper: Mapper, config: AdaptConfig, *, side: int) -> Baseline:
    """The image at a long side of ``side`` pixels, enlarged if it is smaller."""

    def run(image_HW3: UInt8[ndarray, "H W 3"]) -> Counted:
        H, W = image_HW3.shape[:2]
        w, h = (max(1, round(length * side / max(H, W))) for length in (W, H))
        input_hw3 = padded(resized(image_HW3, w, h), config.stride)
        found = detector(input_hw3)
        quad_N42 = found.quad_N42 / (w / W, h / H)
        pixels = input_hw3.shape[0] * input_hw3.shape[1]
        return Counted(Detections(quad_N42.astype("float32"), found.score_N), pixels)

    return run
