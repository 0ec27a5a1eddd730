"""Words as masks of ink, with boxes that touch the ink on every side.

Shapes: h x w pixels of a mask, N words, 4 corners, 2 coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from adaptive.textscale.data.fonts import load_font

CAP_HEIGHT = 0.73
"""Height of capitals as a share of the em, about, in most fonts."""


@dataclass(frozen=True)
class Style:
    """How words are set.

    Attributes:
        font: file of the font.
        size: of the em in pixels.
        spacing: between letters, beyond the font's own, in pixels.
        stroke: added to the outlines in pixels.
    """

    font: str
    size: int
    spacing: int = 0
    stroke: int = 0


@dataclass(frozen=True)
class Ink:
    """Words on a sheet.

    Attributes:
        mask_hw: how much ink, 0 to 255.
        quad_N42: corners of each word's ink, clockwise from the top left, in pixels of the sheet.
        texts: the words.
    """

    mask_hw: UInt8[ndarray, "h w"]
    quad_N42: Float64[ndarray, "N 4 2"]
    texts: tuple[str, ...]


@lru_cache(maxsize=8192)
def word_ink(text: str, style: Style) -> tuple[UInt8[ndarray, "h w"], int, int]:
    """A word's ink without any border, and where it is to be put.

    Args:
        text: the word.
        style: how it is set.

    Returns:
        The mask, empty for a word without ink; columns from the pen to its left side; rows from
        the baseline to its top, negative above.
    """
    from PIL import Image, ImageDraw

    font = load_font(style.font, style.size)
    pad = style.size + style.stroke
    width = round(font.getlength(text)) + style.spacing * len(text) + 2 * pad
    sheet = Image.new("L", (width, 3 * pad))
    draw = ImageDraw.Draw(sheet)
    pen = float(pad)
    for part in text if style.spacing else (text,):
        draw.text((pen, 2 * pad), part, 255, font, anchor="ls", stroke_width=style.stroke)
        pen += font.getlength(part) + style.spacing
    box = sheet.getbbox()
    if box is None:
        return np.zeros((0, 0), np.uint8), 0, 0
    return np.asarray(sheet.crop(box)), box[0] - pad, box[1] - 2 * pad


def set_lines(lines: Sequence[Sequence[str]], style: Style, leading: float, align: float) -> Ink:
    """Lines of words on a sheet that just holds them.

    Args:
        lines: words of each line.
        style: of all of them.
        leading: from one baseline to the next, in ems.
        align: 0 for lines that begin below each other, 1 for lines that end so.
    """
    space = max(2, round(0.3 * style.size) + 2 * style.spacing)
    placed: list[tuple[UInt8[ndarray, "_ _"], float, int, str]] = []
    rows: list[tuple[int, int, float]] = []  # first and last word of a line, and its width
    for number, line in enumerate(lines):
        pen, first = 0.0, len(placed)
        for text in line:
            mask_hw, left, top = word_ink(text, style)
            if mask_hw.size:
                baseline = round(number * leading * style.size)
                placed.append((mask_hw, pen + left, baseline + top, text))
                pen += left + mask_hw.shape[1] + space
        rows.append((first, len(placed), max(0.0, pen - space)))
    widest = max((width for _, _, width in rows), default=0.0)
    shifts = [(widest - width) * align for first, last, width in rows for _ in range(first, last)]
    corners = [
        (round(x + dx), y, mask_hw, text)
        for (mask_hw, x, y, text), dx in zip(placed, shifts, strict=True)
    ]
    if not corners:
        return Ink(np.zeros((1, 1), np.uint8), np.zeros((0, 4, 2)), ())
    left, top = min(c[0] for c in corners), min(c[1] for c in corners)
    right = max(x + mask_hw.shape[1] for x, _, mask_hw, _ in corners)
    bottom = max(y + mask_hw.shape[0] for _, y, mask_hw, _ in corners)
    sheet_hw = np.zeros((bottom - top, right - left), np.uint8)
    quads = [put(sheet_hw, mask_hw, x - left, y - top) for x, y, mask_hw, _ in corners]
    return Ink(sheet_hw, np.array(quads), tuple(text for *_, text in corners))


def put(
    sheet_hw: UInt8[ndarray, "H W"], mask_hw: UInt8[ndarray, "h w"], x: int, y: int
) -> Float64[ndarray, "4 2"]:
    """Adds ink to a sheet, in place, and returns its corners."""
    h, w = mask_hw.shape
    part_hw = sheet_hw[y : y + h, x : x + w]
    np.maximum(part_hw, mask_hw, out=part_hw)
    return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], float)
