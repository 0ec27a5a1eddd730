"""Words in images: what a detector finds, what an annotator drew, and what a network predicts.

Coordinates are x, y in pixels of the image, with the corner of its first pixel at 0, 0. Quads are
clockwise as seen on the screen, beginning wherever their maker began.

Shapes: N words, 4 corners, 2 coordinates, h x w cells of a network's output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

CANONICAL = 32.0
"""Short side in pixels, of a word's smallest rectangle, at which detection is easiest."""


@dataclass(frozen=True)
class Detections:
    """What a detector finds in an image.

    Attributes:
        quad_N42: corners of each word in pixels of the image.
        score_N: confidence in 0 to 1.
    """

    quad_N42: Float32[ndarray, "N 4 2"]
    score_N: Float32[ndarray, " N"]

    @staticmethod
    def none() -> Detections:
        """Of an image without text."""
        return Detections(np.zeros((0, 4, 2), np.float32), np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.score_N)


@dataclass(frozen=True)
class Words:
    """The annotated words of an image.

    Attributes:
        quad_N42: corners in pixels of the image.
        care_N: False for words that count neither as found nor as missed ("don't care").
        texts: transcriptions, ``###`` where there is none.
    """

    quad_N42: Float32[ndarray, "N 4 2"]
    care_N: Bool[ndarray, " N"]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TextMaps:
    """What a network with a scale head says of an image, cell by cell.

    Attributes:
        probability_hw: that the cell lies in the core (shrunk quad) of a word, 0 to 1.
        log_scale_hw: ``ln(s / 32)``, where s is the short side of the word's smallest rectangle in
            pixels of the network's input; it means something where there is text.
        border_hw: that the cell lies near the outline of a word, 0 to 1. It teaches the network to
            tell neighbours apart; boxes are made without it.
        stride: pixels of the network's input for each cell.
    """

    probability_hw: Float32[ndarray, "h w"]
    log_scale_hw: Float32[ndarray, "h w"]
    border_hw: Float32[ndarray, "h w"]
    stride: int = 4


def short_sides(quad_N42: Float32[ndarray, "N 4 2"]) -> Float32[ndarray, " N"]:
    """Short side of each quad's smallest enclosing rectangle, its scale, in pixels."""
    import cv2

    sides = [min(cv2.minAreaRect(quad)[1]) for quad in quad_N42]
    return np.asarray(sides, np.float32)
