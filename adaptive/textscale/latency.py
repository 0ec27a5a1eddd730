"""Seconds of a detector by the pixels of its input."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from adaptive.textscale.detector import Detector

SIDES = (256, 384, 512, 768)


@dataclass(frozen=True)
class LatencyModel:
    """A line: what a call costs by itself, and what each pixel adds.

    Attributes:
        call: seconds of a call, whatever its size.
        pixel: seconds for each pixel of the input.
    """

    call: float
    pixel: float

    def __call__(self, pixels: float, calls: int = 1) -> float:
        """Seconds of ``calls`` calls on ``pixels`` in all."""
        return calls * self.call + self.pixel * pixels

    @classmethod
    def measure(
        cls,
        detector: Detector,
        sides: Sequence[int] = SIDES,
        repeats: int = 3,
        now: Callable[[], float] = time.perf_counter,
    ) -> LatencyModel:
        """Times a detector on noise of several sizes, on the device that it runs on.

        The median of the repeats counts, and sizes take turns, so that a moment's load of the
        machine does not become a slope. Relative errors are what is minimised.

        Args:
            detector: what to time.
            sides: of square inputs in pixels.
            repeats: timings of each size, after one that warms up.
            now: the clock, in seconds.
        """
        noise = np.random.default_rng(0)
        images = [noise.integers(0, 256, (side, side, 3), np.uint8) for side in sides]
        seconds_RS = np.zeros((repeats + 1, len(sides)))
        for row_S in seconds_RS:
            for s, image in enumerate(images):
                start = now()
                detector(image)
                row_S[s] = now() - start
        seconds_S = np.median(seconds_RS[1:], 0)
        pixels_S = np.array([float(side * side) for side in sides])
        design_S2 = np.stack([np.ones(len(sides)), pixels_S], 1) / seconds_S[:, None]
        call, pixel = np.linalg.lstsq(design_S2, np.ones(len(sides)), rcond=None)[0]
        if call < 0:  # a line through the origin, as no call takes negative time
            call, pixel = 0.0, 1 / float(np.mean(pixels_S / seconds_S))
        return cls(float(call), float(pixel))
