"""Decoding photographs as people see them.

Shapes: H x W pixels, 3 channels in the order red, green, blue.
"""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.core.errors import UserError
from adaptive.textscale.data.files import Files


class UnreadableImage(UserError):
    """An image that cannot be decoded, or has no pixels; sets skip it and count it."""


def decode_image(content: bytes, name: str) -> UInt8[ndarray, "H W 3"]:
    """An encoded image, turned as its EXIF orientation says.

    Args:
        content: of a file in any format that Pillow reads; of several frames, the first.
        name: of the file in messages.

    Raises:
        UnreadableImage: it is damaged, empty or no image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as opened:
            # In place, and converted only where it must be: each copy takes as long as decoding.
            ImageOps.exif_transpose(opened, in_place=True)
            image = opened if opened.mode == "RGB" else opened.convert("RGB")
            return np.asarray(image)
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{name} is too large, cut it into parts: {error}") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImage(f"{name} {reason(content, error)}: remove or replace it") from None


def read_image(files: Files, file: str) -> bytes:
    """The content of an image's file.

    Raises:
        UnreadableImage: the file, or its place in an archive, is damaged.
    """
    try:
        return files.read(file)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, UserError) as error:
        raise UnreadableImage(f"{files.path}/{file} cannot be read ({error})") from None


def reason(content: bytes, error: Exception) -> str:
    """Why a file cannot be decoded, in words that follow its name."""
    from PIL import UnidentifiedImageError

    if not content:
        return "is empty"
    if isinstance(error, UnidentifiedImageError):  # its own words are of an object in memory
        return "is no image"
    return f"cannot be decoded as an image ({error})"
