"""How well a network finds the words of annotated images.

Shapes: N words, 4 corners, 2 coordinates, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from adaptive.textscale.canvas import resized
from adaptive.textscale.evaluate.icdar import Matches, Score, match, score
from adaptive.textscale.network.detector import TextDetector
from adaptive.textscale.network.net import TextNet
from adaptive.textscale.train.settings import DetectConfig
from adaptive.textscale.words import CANONICAL, Detections, TextMaps, Words, short_sides

Images = Iterable[tuple[str, UInt8[ndarray, "_ _ 3"], Words]]


@dataclass(frozen=True)
class Validation:
    """What was found in a set of images.

    Attributes:
        score: precision, recall and F by the rules of ICDAR 2015.
        scale_error: median of ``|ln(s' / s)|`` over the words that care, s' from the median of the
            log-scale in the word's core; None without words.
        found: which words were found, by the name of the image; one that cannot be read is missing.
    """

    score: Score
    scale_error: float | None
    found: dict[str, Bool[ndarray, " _"]]


def make_detector(net: TextNet, config: DetectConfig, device: str) -> TextDetector:
    """A network as validation uses it, with the prior that it has."""
    return TextDetector(
        net.spend(config.tokens),
        threshold=config.threshold,
        box_threshold=config.box_threshold,
        grow=config.grow,
        device=device,
    )


def validate(detector: TextDetector, images: Images, long_side: int) -> Validation:
    """Detects words in every image, shrunk to a long side, and judges them.

    Args:
        detector: the network.
        images: name, RGB image and words of each.
        long_side: in pixels; smaller images stay as they are.
    """
    matches: dict[str, Matches] = {}
    errors: list[float] = []
    for name, image_HW3, words in images:
        small_HW3, ratio = shrunk(image_HW3, long_side)
        maps = detector.maps(small_HW3)
        found = detector.boxes(maps)
        quad_N42 = found.quad_N42 / np.float32(ratio)
        matches[name] = match(words, Detections(quad_N42, found.score_N))
        caring = replace(
            words,
            quad_N42=words.quad_N42[words.care_N] * np.float32(ratio),
        )
        errors += scale_errors(maps, caring.quad_N42)
    found_words = {name: each.found_N for name, each in matches.items()}
    middle = float(np.median(errors)) if errors else None
    return Validation(score(matches.values()), middle, found_words)


def scale_errors(maps: TextMaps, quad_N42: ndarray) -> list[float]:
    """``|ln(s' / s)|`` of each word, s' from the middle half of its quad.

    Args:
        maps: of the network.
        quad_N42: words in pixels of the network's input.
    """
    errors = []
    for quad_42, scale in zip(quad_N42, short_sides(quad_N42), strict=True):
        inside_hw = np.zeros(maps.log_scale_hw.shape, np.uint8)
        centre_2 = quad_42.mean(0)
        core_42 = (centre_2 + (quad_42 - centre_2) / 2) / maps.stride - 0.5
        cv2.fillPoly(inside_hw, [np.rint(core_42 * 16).astype(np.int32)], 1, shift=4)
        values = maps.log_scale_hw[inside_hw > 0]
        if len(values) and scale > 0:
            errors.append(float(abs(np.median(values) - np.log(scale / CANONICAL))))
    return errors


def shrunk(
    image_HW3: UInt8[ndarray, "H W 3"], long_side: int
) -> tuple[UInt8[ndarray, "h w 3"], float]:
    """The image with its long side at most so many pixels, and by what it was multiplied."""
    height, width = image_HW3.shape[:2]
    ratio = min(1.0, long_side / max(height, width))
    if ratio == 1:
        return image_HW3, 1.0
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return resized(image_HW3, *size), ratio
