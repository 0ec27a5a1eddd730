"""Putting a block of text onto an image, in colours that can be told from what is below.

Shapes: H x W pixels of the image, h x w of a sheet or of a part of the image, 3
channels.
"""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import Float64, UInt8
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
    ink_hw = np.pad(block.ink.mask_hw, pad)
    outline_42 = block.outline()
    x, y = np.floor(outline_42.min(0)).astype(int).clip(0).tolist()
    right, bottom = np.ceil(outline_42.max(0)).astype(int).tolist()
    part_hw3 = image_HW3[y : min(bottom + 1, height), x : min(right + 1, width)]
    view_33 = shift(-x, -y) @ block.view_33 @ shift(-pad, -pad)

    def cover(cover_hw: np.ndarray, colour_3: Colour, opacity: float) -> None:
        seen_hw = warp(cover_hw, view_33, part_hw3.shape[1], part_hw3.shape[0], block.fine)
        share_hw1 = seen_hw[..., None] * np.float32(opacity / 255)
        part_hw3[:] = part_hw3 + share_hw1 * (colour_3.astype(np.float32) - part_hw3)

    mean, spread = cv2.meanStdDev(part_hw3)
    below_3, unrest = mean[:, 0], float(spread.mean())
    if rng.random() < (0.7 if unrest > 45 else 0.2):
        below_3, unrest = random_colour(rng), 0.0
        plate_hw = np.zeros_like(ink_hw)
        edge = 2 + round(rng.uniform(0, 0.5) * block.margin)
        plate_hw[edge:-edge, edge:-edge] = 255
        cover(plate_hw, below_3, rng.uniform(0.75, 1))
    colour_3 = contrasting_colour(rng, below_3, max(rng.uniform(40, 150), 1.3 * unrest))
    kind = rng.random()
    if kind < 0.15:
        thick = max(1, round(0.25 * pad * rng.uniform(0.3, 1)))
        wide_hw = cv2.dilate(ink_hw, np.ones((2 * thick + 1, 2 * thick + 1), np.uint8))
        cover(wide_hw, contrasting_colour(rng, colour_3, 60), 1.0)
    elif kind < 0.3:
        dx, dy = rng.integers(-pad // 3, pad // 3 + 1, 2)
        shadow_hw = cv2.GaussianBlur(np.roll(ink_hw, (dy, dx), (0, 1)), (0, 0), 0.5 + pad / 8)
        cover(shadow_hw, np.full(3, 0.0 if colour_3 @ LUMA_3 > 90 else 255.0), 0.7)
    cover(ink_hw, colour_3, rng.uniform(0.85, 1))


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
