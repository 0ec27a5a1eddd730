"""What may be wrapped: any callable, an ONNX file, or a network with maps.

Shapes: H x W pixels of an image with 3 channels (RGB, uint8).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.core.errors import UserError
from adaptive.textscale.words import Detections, TextMaps

Detector = Callable[[ndarray], Detections]
"""Finds words in an RGB image, in its pixels."""


@runtime_checkable
class Mapper(Protocol):
    """What pass 1 needs: where text is and how large, and the boxes that this gives."""

    def maps(self, image_HW3: UInt8[ndarray, "H W 3"], /) -> TextMaps:
        """Probability and scale of text at each cell of the image."""
        ...

    def boxes(self, maps: TextMaps, /) -> Detections:
        """Boxes of the words in the maps, in pixels of the image that they were made from."""
        ...


def as_detector(given: Any, setting: str = "detector") -> Detector:
    """A detector from whatever the user has.

    Args:
        given: path of an ONNX file, or a callable that takes an RGB image and returns
            :class:`Detections` or pairs of a quad (4 x 2 numbers) and a score.
        setting: its name in messages.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(given, (str, os.PathLike)):
        from adaptive.textscale.onnx_detector import OnnxDetector

        return OnnxDetector(given, setting=setting)
    if isinstance(given, Mapper):
        return given if callable(given) else _Boxes(given)
    if callable(given):
        return _Pairs(given, setting)
    raise UserError(
        f"{setting} is a {type(given).__name__}: give a function of an image, the path of an ONNX "
        "file, or a network with maps and boxes"
    )


def as_mapper(given: Any, setting: str = "prior") -> Mapper:
    """The pass-1 network from whatever the user has.

    Raises:
        UserError: it gives no maps.
    """
    if isinstance(given, (str, os.PathLike)):
        from adaptive.textscale.onnx_detector import OnnxDetector

        return OnnxDetector(given, setting=setting)
    if isinstance(given, Mapper):
        return given
    raise UserError(
        f"{setting} is needed, as boxes alone say nothing of text that a detector overlooks: give "
        "a network with maps and boxes, or the path of an ONNX file with a probability map"
    )


class _Boxes:
    """A mapper as a detector."""

    def __init__(self, mapper: Mapper):
        self.mapper = mapper

    def __call__(self, image_HW3: ndarray) -> Detections:
        return self.mapper.boxes(self.mapper.maps(image_HW3))


class _Pairs:
    """Someone's function, whose results are brought into our form and checked."""

    def __init__(self, function: Callable[[ndarray], Any], setting: str):
        self.function, self.setting = function, setting

    def __call__(self, image_HW3: ndarray) -> Detections:
        found = self.function(image_HW3)
        if isinstance(found, Detections):
            return found
        try:
            pairs = [(np.asarray(quad, np.float32), float(score)) for quad, score in found]
            quad_N42 = np.array([quad for quad, _ in pairs], np.float32).reshape(-1, 4, 2)
        except (TypeError, ValueError):
            raise UserError(
                f"{self.setting} returned {type(found).__name__}: it must return Detections, or "
                "pairs of a quad of 4 corners x, y and a score"
            ) from None
        if len(quad_N42) != len(pairs):
            raise UserError(f"{self.setting} returned quads that do not have 4 corners x, y each")
        return Detections(quad_N42, np.array([score for _, score in pairs], np.float32))
