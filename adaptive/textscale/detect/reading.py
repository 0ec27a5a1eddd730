"""Images of any size in bounded memory.

Shapes: H x W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps

from adaptive.textscale.data.images import UnreadableImage, reason

_SHRINKS = (1, 2, 4, 8)  # what JPEG decodes to without making the whole image first


def read_bounded(content: bytes, name: str, max_pixels: int) -> tuple[UInt8[ndarray, "H W 3"], int]:
    """An encoded image, turned as its EXIF orientation says, and by what it was shrunk.

    A JPEG of more pixels than ``max_pixels`` is decoded at a half, a quarter or an eighth of its
    sides; other formats are refused before a pixel of them is decoded.

    Raises:
        UnreadableImage: it is damaged, empty, no image, or too large.
    """
    try:
        with _any_size(), Image.open(io.BytesIO(content)) as opened:
            width, height = opened.size
            fits = [s for s in _SHRINKS if -(-width // s) * -(-height // s) <= max_pixels]
            if not fits or (fits[0] > 1 and opened.format != "JPEG"):
                raise UnreadableImage(
                    f"{name} has {width} x {height} pixels, and max_pixels={max_pixels} bounds "
                    "memory: raise it, or cut the image into parts"
                )
            if fits[0] > 1:
                opened.draft("RGB", (width // fits[0], height // fits[0]))
            shrink = round(width / opened.size[0])
            image_HW3 = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except UnreadableImage:
        raise
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImage(f"{name} {reason(content, error)}: remove or replace it") from None
    if image_HW3.shape[0] * image_HW3.shape[1] > max_pixels:
        raise UnreadableImage(f"{name} is larger than max_pixels={max_pixels}: raise it")
    return image_HW3, shrink


@contextmanager
def _any_size() -> Iterator[None]:
    """Lifts Pillow's own bound, which it checks before an image can be asked to shrink."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
