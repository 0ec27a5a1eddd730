"""Pages of print: columns, headings, paragraphs and pictures, scanned or photographed.

Shapes: H x W pixels, N words, 4 corners, 2 coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from adaptive.textscale.data.backgrounds import texture
from adaptive.textscale.data.config import RenderConfig
from adaptive.textscale.data.homography import shift, transform
from adaptive.textscale.data.lettering import CAP_HEIGHT, Style, word_ink
from adaptive.textscale.data.vocabulary import one_of, prose_text, sign_text

LARGEST_BODY = 28.0
"""Height in pixels of the largest body text."""
X_HEIGHT, FULL_HEIGHT = 0.5, 0.95
"""Heights of words as shares of the em, about: of small letters, and from d's top to p's bottom."""


@dataclass
class Sheet:
    """Paper that is being printed on.

    Attributes:
        image_HW3: what it looks like.
        quads: corners of the words so far.
        texts: the words so far.
    """

    image_HW3: UInt8[ndarray, "H W 3"]
    quads: list[list[tuple[int, int]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def word(self, text: str, style: Style, pen: int, baseline: int, colour_3: np.ndarray) -> int:
        """Prints a word and returns its right side; one that leaves the sheet is left out."""
        mask_hw, left, top = word_ink(text, style)
        (h, w), x, y = mask_hw.shape, pen + left, baseline + top
        if not mask_hw.size or x < 0 or y < 0:
            return pen
        part_hw3 = self.image_HW3[y : y + h, x : x + w]
        if part_hw3.shape[:2] != (h, w):
            return x + w
        cover_hw1 = mask_hw[..., None].astype(np.float32) / 255
        part_hw3[:] = part_hw3 + cover_hw1 * (colour_3 - part_hw3)
        self.quads.append([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])
        self.texts.append(text)
        return x + w


def page(
    rng: np.random.Generator, fonts: Sequence[str], config: RenderConfig
) -> tuple[UInt8[ndarray, "H W 3"], Float64[ndarray, "N 4 2"], list[str]]:
    """A page and its words.

    Args:
        rng: source of chance.
        fonts: files to choose from.
        config: size of the page, heights of words and how much of the page is printed on.
    """
    height, width = config.height, config.width
    paper_3 = (rng.uniform(190, 255) - rng.uniform(0, 25, 3)).astype(np.float32)
    sheet = Sheet(np.broadcast_to(paper_3.astype(np.uint8), (height, width, 3)).copy())
    ink_3 = rng.uniform(0, 70) + rng.uniform(0, 25, 3)
    largest = min(LARGEST_BODY, config.max_scale, width / 25)
    low = 1.1 * config.min_scale / X_HEIGHT
    high = max(1.1 * low, largest / FULL_HEIGHT)
    size = round(math.exp(rng.uniform(math.log(low), math.log(high))))
    body = Style(one_of(rng, fonts), size)
    leading = round(size * rng.uniform(1.15, 1.6))

    margin = round(rng.uniform(0.04, 0.1) * width)
    columns = int(rng.integers(1, max(1, min(3, width // (22 * size))) + 1))
    gap = round(1.8 * size)
    column = (width - 2 * margin - (columns - 1) * gap) // columns
    top = margin + size
    if rng.random() < 0.6:
        top = _heading(rng, sheet, fonts, config, (margin, top, width - 2 * margin), ink_3, 4.0)
        top += leading
    for number in range(columns):
        x, y = margin + number * (column + gap), top
        while y < height - margin:
            kind = rng.random()
            if kind < 0.12:
                y = _heading(rng, sheet, fonts, config, (x, y, column), ink_3, 1.8)
                y += leading
            elif kind < 0.18 and rng.random() < config.fill:
                tall = min(round(rng.uniform(0.3, 0.8) * column), height - margin - y)
                if tall > 16:
                    sheet.image_HW3[y : y + tall, x : x + column] = texture(rng, tall, column)
                y += tall + 2 * leading
            else:
                rows = int(rng.integers(2, 10))
                rows = min(rows, (height - margin - y) // leading + 1)
                if rng.random() < config.fill:
                    _paragraph(rng, sheet, body, leading, (x, y, column), rows, ink_3)
                y += rows * leading + round(rng.uniform(0.2, 1.2) * leading)
    return _seen(rng, sheet, paper_3)


def _paragraph(
    rng: np.random.Generator,
    sheet: Sheet,
    style: Style,
    leading: int,
    place: tuple[int, int, int],
    rows: int,
    ink_3: np.ndarray,
) -> None:
    """Rows of words from ``place``: left side, first baseline, width."""
    x, y, width = place
    space = max(2, round(0.33 * style.size))
    for row in range(rows):
        end = x + width * (rng.uniform(0.3, 0.9) if row == rows - 1 else 1)
        pen = x + (2 * style.size if row == 0 and rng.random() < 0.5 else 0)
        while True:
            text = prose_text(rng)
            mask_hw, left, _ = word_ink(text, style)
            if pen + left + mask_hw.shape[1] > end:
                break
            pen = sheet.word(text, style, pen, y + row * leading, ink_3) + space


def _heading(
    rng: np.random.Generator,
    sheet: Sheet,
    fonts: Sequence[str],
    config: RenderConfig,
    place: tuple[int, int, int],
    ink_3: np.ndarray,
    times: float,
) -> int:
    """One row of large words from ``place``; returns where text below may touch it."""
    x, y, width = place
    largest = min(config.max_scale, width / 8, LARGEST_BODY * times)
    height = rng.uniform(min(1.3 * config.min_scale, largest), largest)
    style = Style(one_of(rng, fonts), max(6, round(height / CAP_HEIGHT)))
    baseline, pen = y + style.size, x
    colour_3 = ink_3 if rng.random() < 0.7 else rng.uniform(0, 130, 3)
    for _ in range(int(rng.integers(1, 6))):
        text = sign_text(rng)
        mask_hw, left, _ = word_ink(text, style)
        if pen + left + mask_hw.shape[1] > x + width:
            break
        pen = sheet.word(text, style, pen, baseline, colour_3) + max(2, round(0.33 * style.size))
    return baseline + round(0.4 * style.size)


def _seen(
    rng: np.random.Generator, sheet: Sheet, paper_3: np.ndarray
) -> tuple[UInt8[ndarray, "H W 3"], Float64[ndarray, "N 4 2"], list[str]]:
    """The page as it is: flat, turned a little in a scanner, or photographed from one side."""
    import cv2

    height, width = sheet.image_HW3.shape[:2]
    quad_N42 = np.array(sheet.quads, float).reshape(-1, 4, 2)
    kind = rng.random()
    if kind < 0.3:
        return sheet.image_HW3, quad_N42, sheet.texts
    corner_42 = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    if kind < 0.7:
        angle = rng.normal(0, 1.5)
        turn_23 = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
        turned_42 = corner_42 @ turn_23[:, :2].T + turn_23[:, 2]
        middle_2 = turned_42.mean(0)
        low_2, high_2 = turned_42.min(0), turned_42.max(0)
        fit = min(np.array([width, height]) / (high_2 - low_2))
        seen_42 = (turned_42 - middle_2) * fit + middle_2
    else:
        # Each corner is drawn in: the nearest ones are seen larger than the farthest.
        inwards_42 = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * [width, height]
        seen_42 = corner_42 + inwards_42 * rng.uniform(0, 0.16, (4, 2))
    view_33 = cv2.getPerspectiveTransform(corner_42, seen_42.astype(np.float32))
    around = np.clip(paper_3 - rng.uniform(0, 160), 0, 255) if rng.random() < 0.7 else paper_3
    centred_33 = shift(-0.5, -0.5) @ view_33 @ shift(0.5, 0.5)
    image_HW3 = cv2.warpPerspective(
        sheet.image_HW3,
        centred_33,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=tuple(float(value) for value in around),
    )
    return image_HW3, transform(view_33, quad_N42), sheet.texts
