"""Photographs that ship with scikit-image, whole and in views of their parts.

Shapes: V views, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from adaptive.quadformer.data.cache import square

WINDOWS = (1.0, 0.75, 0.5)  # of a view, as shares of the short side


def photo(name: str) -> Image.Image:
    """A photograph by its name in ``PHOTOS``; nothing is downloaded."""
    import skimage.data

    # Pairs of stereo photographs come with a map of disparities; the left one is shown.
    pixels = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else None
    return Image.fromarray(getattr(skimage.data, name)() if pixels is None else pixels)


def centre(image: Image.Image, size: int) -> UInt8[np.ndarray, "3 S S"]:
    """The centre of a photograph, its short side resized to ``size``."""
    return np.ascontiguousarray(np.asarray(square(image, size)).transpose(2, 0, 1))


def views(image: Image.Image, size: int) -> UInt8[np.ndarray, "V 3 S S"]:
    """What one may see of a photograph: its centre, and smaller windows in the middle and at the
    corners of that; each also mirrored."""
    found = [centre(image.crop(box), size) for box in _windows(image)]
    return np.stack([view for one in found for view in (one, one[:, :, ::-1])])


def _windows(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, right and bottom of each window."""
    short = min(image.size)
    left, top = ((side - short) // 2 for side in image.size)
    for share in WINDOWS:
        side = round(share * short)
        rest = short - side
        places = {(0, 0), (0, rest), (rest, 0), (rest, rest), (rest // 2, rest // 2)}
        for across, down in sorted(places):
            yield left + across, top + down, left + across + side, top + down + side
