"""Putting a block of text onto an image, in colours that can be told from what is below.

Shapes: H x W pixels of the image, h x w of a sheet or a part of the image, 3 channels.
"""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy import ndarray

from adaptive.textscale.data.blocks import Block
from adaptive.textscale.data.homography import shift, warp

LUMA_3 = np.array([0.299, 0.587, 0.114])
"""Brightness of red, green and blue (ITU-R BT.601)."""

Colour = Float64[ndarray, "3"]


def paint(rng: np.random.Generator, image_HW3: UInt8[ndarray, "H W 3"], block: Block) -> None:
    """Paints a block, in place: letters, perhaps with an outline, a shadow or a plate below.

    Args:
        rng: source of chance.
        image_HW3: the image.
        block: in its pixels.
    """
    import cv2

    height, width = image_HW3.shape[:2]
    pad = block.margin + 2
    ink_hw = np.pad(block.ink.mask_hw, pad).astype(np.float32) / 255
    view_33 = block.view_33 @ shift(-pad, -pad)
    outline_42 = block.outline()
    x, y = np.floor(outline_42.min(0)).astype(int).clip(0).tolist()
    right, bottom = np.ceil(outline_42.max(0)).astype(int).tolist()
    right, bottom = min(right + 1, width), min(bottom + 1, height)
    part_hw3 = image_HW3[y:bottom, x:right]

    mean, spread = cv2.meanStdDev(part_hw3)
    below_3, unrest = mean[:, 0], float(spread.mean())
    sheet_hw4 = np.zeros((*ink_hw.shape, 4), np.float32)
    if rng.random() < (0.7 if unrest > 45 else 0.2):
        below_3 = random_colour(rng)
        plate_hw = np.zeros_like(ink_hw)
        edge = 2 + round(rng.uniform(0, 0.5) * block.margin)
        plate_hw[edge:-edge, edge:-edge] = rng.uniform(0.75, 1)
        unrest = 0.0
        _over(sheet_hw4, plate_hw, below_3)
    contrast = max(rng.uniform(40, 150), 1.3 * unrest)
    colour_3 = contrasting_colour(rng, below_3, contrast)
    kind = rng.random()
    if kind < 0.15:
        thick = max(1, round(0.25 * pad * rng.uniform(0.3, 1)))
        wide_hw = cv2.dilate(ink_hw, np.ones((2 * thick + 1, 2 * thick + 1), np.uint8))
        _over(sheet_hw4, wide_hw, contrasting_colour(rng, colour_3, 60))
    elif kind < 0.3:
        dx, dy = rng.integers(-pad // 3, pad // 3 + 1, 2)
        shadow_hw = cv2.GaussianBlur(np.roll(ink_hw, (dy, dx), (0, 1)), (0, 0), 0.5 + pad / 8)
        dark = 0.0 if colour_3 @ LUMA_3 > 90 else 255.0
        _over(sheet_hw4, 0.7 * shadow_hw, np.full(3, dark))
    _over(sheet_hw4, ink_hw * rng.uniform(0.85, 1), colour_3)

    sheet_hw4[..., 3] *= 255
    bytes_hw4 = cv2.convertScaleAbs(sheet_hw4)
    seen_hw4 = warp(bytes_hw4, shift(-x, -y) @ view_33, right - x, bottom - y, block.fine)
    clear_hw1 = 1 - seen_hw4[..., 3:].astype(np.float32) / 255
    part_hw3[:] = (part_hw3 * clear_hw1 + seen_hw4[..., :3]).clip(0, 255)


def random_colour(rng: np.random.Generator) -> Colour:
    """A colour as signs have: white or black, a grey, or a strong hue."""
    kind = rng.random()
    if kind < 0.3:
        return np.full(3, rng.uniform(225, 255)) - rng.uniform(0, 15, 3)
    if kind < 0.5:
        return rng.uniform(0, 30) + rng.uniform(0, 15, 3)
    if kind < 0.6:
        return np.full(3, rng.uniform(30, 225))
    hue, saturation, value = rng.random(), rng.uniform(0.4, 1), rng.uniform(0.3, 1)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def contrasting_colour(rng: np.random.Generator, below_3: Colour, contrast: float) -> Colour:
    """A colour whose brightness differs from another's by at least so much, of 255.

    Where nothing differs that much: black or white, whichever differs more.
    """
    brightness = float(below_3 @ LUMA_3)
    for _ in range(10):
        colour_3 = random_colour(rng)
        if abs(float(colour_3 @ LUMA_3) - brightness) >= contrast:
            return colour_3
    return np.full(3, 0.0 if brightness > 127 else 255.0)


def _over(
    sheet_hw4: Float32[ndarray, "h w 4"], cover_hw: Float32[ndarray, "h w"], colour_3: Colour
) -> None:
    """Covers a sheet of premultiplied colour (0 to 255) and opacity (0 to 1), in place."""
    paint_4 = np.append(colour_3, 1).astype(np.float32)
    sheet_hw4 += cover_hw[..., None] * (paint_4 - sheet_hw4)
