"""Ways to find words, each over all images of a set: matches, pixels, time.

Shapes: N words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from adaptive.core.errors import UserError
from adaptive.textscale.adaptive_detector import AdaptiveDetector
from adaptive.textscale.baselines import Baseline, Counted
from adaptive.textscale.data.labelled import Sample
from adaptive.textscale.evaluate.icdar import Matches, Score, match, score
from adaptive.textscale.evaluate.prior import PriorScore, score_prior
from adaptive.textscale.first_look import FirstLook
from adaptive.textscale.regions import Regions, known_regions
from adaptive.textscale.words import Detections, Words, short_sides


@dataclass
class Measured:
    """What a method did on a set.

    Attributes:
        words, found, matches: annotations, detections and matches of each image.
        megapixels: of all inputs, padding included, of each image.
        seconds: of each image, decoding aside.
        regions: of pass 1, of each image, where there is one.
        overhead: seconds of each image beside the networks, where they are known.
    """

    words: list[Words] = field(default_factory=list)
    found: list[Detections] = field(default_factory=list)
    matches: list[Matches] = field(default_factory=list)
    megapixels: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    regions: list[Regions] = field(default_factory=list)
    overhead: list[float] = field(default_factory=list)

    def add(self, words: Words, found: Detections, pixels: float, seconds: float) -> None:
        """One more image."""
        self.words.append(words)
        self.found.append(found)
        self.matches.append(match(words, found))
        self.megapixels.append(pixels / 1e6)
        self.seconds.append(seconds)

    @property
    def score(self) -> Score:
        """By the rules of ICDAR 2015."""
        return score(self.matches)

    def prior(self) -> PriorScore:
        """How well pass 1 saw the words and told their scales; of methods that have regions."""
        quads = [
            regions.padded_R4[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float32)
            for regions in self.regions
        ]
        scales = [regions.scale_R.astype(np.float32) for regions in self.regions]
        return score_prior(zip(self.words, quads, scales, strict=True))

    def numbers(self) -> dict[str, Any]:
        """F, precision, recall, mean megapixels and median milliseconds of an image.

        Raises:
            UserError: no image could be read.
        """
        if not self.words:
            raise UserError("data.images: none of the photographs can be read")
        total = self.score
        return {
            "f": total.hmean,
            "precision": total.precision,
            "recall": total.recall,
            "megapixels": float(np.mean(self.megapixels)),
            "ms_per_image": 1e3 * float(np.median(self.seconds)),
        }


Track = Callable[[Iterable[Sample]], Iterable[Sample]]


def run_baseline(images: Iterable[Sample], baseline: Baseline, track: Track) -> Measured:
    """A baseline over all images that can be read."""
    measured = Measured()
    for _, image_HW3, words in track(images):
        if not measured.words:
            baseline(image_HW3)  # the first call of a size allocates
        start = time.perf_counter()
        counted: Counted = baseline(image_HW3)
        seconds = time.perf_counter() - start
        measured.add(words, counted.detections, counted.pixels, seconds)
    return measured


def run_adaptive(
    images: Iterable[Sample], detector: AdaptiveDetector, track: Track, *, oracle: bool = False
) -> Measured:
    """The second look over all images; with ``oracle``, regions are those of the annotated words
    and pass 1 costs nothing."""
    measured = Measured()
    for _, image_HW3, words in track(images):
        looks = [known_look(image_HW3, words)] if oracle else None
        if not measured.words:
            detector.inspect([image_HW3], looks)
        start = time.perf_counter()
        result = detector.inspect([image_HW3], looks)
        seconds = time.perf_counter() - start
        pixels = result.pass1_pixels + result.pass2_pixels
        measured.add(words, result.detections[0], pixels, seconds)
        measured.regions.append(result.regions[0])
        parts = ("regions", "allocate", "compose", "merge")
        measured.overhead.append(sum(result.seconds[part] for part in parts))
    return measured


def known_look(image_HW3: UInt8[ndarray, "H W 3"], words: Words) -> FirstLook:
    """A first look that found no boxes, but knows where every word is and how large."""
    height, width = image_HW3.shape[:2]
    regions = known_regions(words, width, height)
    # No zoom is too small to be of use where pass 1 kept nothing.
    return FirstLook(Detections.none(), regions, 1e-6, 0, (0.0, 0.0))


def heights_found(
    measured: Measured, zooms: Iterable[float]
) -> tuple[Float[ndarray, " N"], Bool[ndarray, " N"]]:
    """Height in the detector's input of each word that counts, and whether it was found.

    Args:
        measured: a single scale.
        zooms: pixels of the input for each pixel of the image, of each image.
    """
    heights, found = [np.zeros(0)], [np.zeros(0, bool)]
    for words, matches, zoom in zip(measured.words, measured.matches, zooms, strict=True):
        heights.append(short_sides(words.quad_N42[matches.care_N]).astype(float) * zoom)
        found.append(matches.found_N[matches.care_N])
    return np.concatenate(heights), np.concatenate(found)
