"""What an adaptive detection leaves behind, for people who want to know what it did.

Shapes: I images, M canvases, R regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from adaptive.core import Allocation
from adaptive.textscale.first_look import FirstLook
from adaptive.textscale.plan import Plan
from adaptive.textscale.regions import Regions
from adaptive.textscale.words import Detections


@dataclass(frozen=True)
class AdaptiveResult:
    """Words of one or several images that shared canvases.

    Attributes:
        detections: words of each image, in its pixels.
        looks: what pass 1 found in each.
        plan: what pass 2 looked at.
        canvases: what it saw, RGB.
        seconds: wall time by part: pass1, regions, allocate (with packing), compose (cutting and
            resizing), pass2, merge (mapping back, suppression).
        warnings: sentences for the user, each with its image's number where there are several.
    """

    detections: tuple[Detections, ...]
    looks: tuple[FirstLook, ...]
    plan: Plan
    canvases: tuple[UInt8[ndarray, "_ _ 3"], ...]
    seconds: dict[str, float]
    warnings: tuple[str, ...]

    @property
    def regions(self) -> tuple[Regions, ...]:
        """Of each image."""
        return tuple(look.regions for look in self.looks)

    @property
    def again(self) -> list[Bool[ndarray, " _"]]:
        """Whether each region of each image was looked at again, alone or with its image."""
        ends = np.cumsum([len(regions) for regions in self.regions])[:-1]
        parts = np.split(self.plan.choice_R > 1, ends)
        return [part_R | (zoom > 0) for part_R, zoom in zip(parts, self.plan.zoom_I, strict=True)]

    @property
    def allocation(self) -> Allocation | None:
        """The core's answer over the regions of all images; None where there are none."""
        return self.plan.allocation

    @property
    def pass1_pixels(self) -> int:
        """Pixels of the inputs of pass 1, padding included."""
        return sum(look.pixels for look in self.looks)

    @property
    def pass2_pixels(self) -> int:
        """Pixels of the canvases."""
        return self.plan.packing.pixels

    @property
    def megapixels(self) -> float:
        """Millions of pixels of both passes, padding included."""
        return (self.pass1_pixels + self.pass2_pixels) / 1e6

    def to_json(self) -> dict[str, Any]:
        """Numbers and decisions, without images and boxes."""
        return {
            "megapixels": self.megapixels,
            "pass1_pixels": self.pass1_pixels,
            "pass2_pixels": self.pass2_pixels,
            "coverage": [look.regions.coverage for look in self.looks],
            "whole_image_zoom": self.plan.zoom_I.tolist(),
            "allocation": None if self.allocation is None else self.allocation.to_json(),
            "seconds": self.seconds,
            "warnings": list(self.warnings),
        }
