"""Blocks of text in a scene: a few lines in one style, seen from one side, on a free place.

Shapes: H x W pixels of the image, h x w of a sheet of ink, N words, 4 corners, 2 coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from adaptive.textscale.data.homography import (
    Matrix33,
    random_view,
    scale,
    shift,
    transform,
)
from adaptive.textscale.data.lettering import CAP_HEIGHT, Ink, Style, set_lines
from adaptive.textscale.data.vocabulary import one_of, sign_text
from adaptive.textscale.words import short_sides

_WORD_TRIES, _PLACE_TRIES, _PLACES = 8, 12, 3


@dataclass(frozen=True)
class Block:
    """A sheet of ink and how it is seen.

    Attributes:
        ink: the words, on a sheet of ``fine`` pixels for each of the image.
        view_33: from pixels of the sheet to pixels of the image, around the origin.
        fine: see ``ink``.
        margin: around the ink, in pixels of the sheet, that no other block may touch.
    """

    ink: Ink
    view_33: Matrix33
    fine: int
    margin: int

    def outline(self) -> Float64[ndarray, "4 2"]:
        """Corners of the sheet with its margin, in pixels of the image around the origin."""
        h, w = self.ink.mask_hw.shape
        m = self.margin
        corner_42 = np.array([(-m, -m), (w + m, -m), (w + m, h + m), (-m, h + m)], float)
        return transform(self.view_33, corner_42)

    def quads(self) -> Float64[ndarray, "N 4 2"]:
        """Corners of the words, in pixels of the image around the origin."""
        return transform(self.view_33, self.ink.quad_N42)

    def at(self, x: float, y: float) -> Block:
        """The block, moved."""
        return Block(self.ink, shift(x, y) @ self.view_33, self.fine, self.margin)


def draw_block(
    rng: np.random.Generator, fonts: Sequence[str], height: float, room: float
) -> Block | None:
    """Random words of a height.

    Args:
        rng: source of chance.
        fonts: files to choose from.
        height: median of the words' short sides in pixels of the image.
        room: widest line in pixels of the image.

    Returns:
        The block; None where the room is too small for any word of the height.
    """
    # Small words are drawn larger and averaged, as a sensor does.
    fine = 3 if height < 16 else 2 if height < 32 else 1
    size = max(6, round(height * fine / CAP_HEIGHT))
    style = Style(
        one_of(rng, fonts),
        size,
        spacing=round(size * rng.uniform(0.02, 0.2)) if rng.random() < 0.15 else 0,
        stroke=round(size * 0.04) if rng.random() < 0.15 else 0,
    )
    lines = _random_lines(rng, room * fine / (0.66 * size + style.spacing))
    if not lines:
        return None
    ink = set_lines(lines, style, rng.uniform(1.05, 1.6), float(rng.choice([0, 0, 0.5, 0.5, 1])))
    if not ink.texts:
        return None
    h, w = ink.mask_hw.shape
    view_33 = random_view(rng, w, h) @ shift(-w / 2, -h / 2)
    drawn = float(np.median(short_sides(transform(view_33, ink.quad_N42).astype(np.float32))))
    view_33 = scale(height / drawn, height / drawn) @ view_33
    return Block(ink, view_33, fine, margin=2 * fine + round(0.3 * size))


def find_place(
    rng: np.random.Generator,
    block: Block,
    taken_HW: UInt8[ndarray, "H W"],
    image_HW3: UInt8[ndarray, "H W 3"],
) -> Block | None:
    """The block where it fits into the image and touches no other; calm places are preferred.

    Args:
        rng: source of chance.
        block: around the origin.
        taken_HW: not 0 where there is text; the place that is found is added.
        image_HW3: what the text will be put on.

    Returns:
        The block in pixels of the image; None where no place was found.
    """
    import cv2

    height, width = taken_HW.shape
    outline_42 = block.outline()
    low_2, high_2 = outline_42.min(0), outline_42.max(0)
    room_2 = np.array([width, height]) - (high_2 - low_2)
    if room_2.min() < 0:
        return None
    places: list[tuple[float, Block, np.ndarray, tuple[slice, slice]]] = []
    for _ in range(_PLACE_TRIES):
        move_2 = rng.uniform(0, 1, 2) * room_2 - low_2
        part, mask_hw = _mask(outline_42 + move_2, height, width)
        if (taken_HW[part] & mask_hw).any():
            continue
        unrest = float(cv2.meanStdDev(image_HW3[part], mask=mask_hw)[1].mean())
        places.append((unrest, block.at(*move_2), mask_hw, part))
        if len(places) == _PLACES or rng.random() < 0.3:
            break
    if not places:
        return None
    _, found, mask_hw, part = min(places, key=lambda place: place[0])
    taken_HW[part] |= mask_hw
    return found


def _mask(
    outline_42: np.ndarray, height: int, width: int
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of the image around an outline, and 255 where the outline covers it."""
    import cv2

    x, y = np.floor(outline_42.min(0)).astype(int).clip(0)
    right, bottom = np.ceil(outline_42.max(0)).astype(int) + 1
    part = (slice(y, min(height, bottom)), slice(x, min(width, right)))
    mask_hw = np.zeros((part[0].stop - y, part[1].stop - x), np.uint8)
    cv2.fillConvexPoly(mask_hw, (outline_42 - [x, y]).round().astype(np.int32), 255)
    return part, mask_hw


def _random_lines(rng: np.random.Generator, letters: float) -> list[list[str]]:
    """Words in lines of at most so many letters; none where not even two have room."""
    lines: list[list[str]] = []
    for _ in range(_drawn(rng, (0.5, 0.27, 0.15, 0.08))):
        line: list[str] = []
        left = math.floor(letters)
        for _ in range(_drawn(rng, (0.45, 0.27, 0.16, 0.12))):
            tries = (sign_text(rng) for _ in range(_WORD_TRIES))
            word = next((word for word in tries if len(word) <= left), "")
            if not word:
                break
            line.append(word)
            left -= len(word) + 1
        if line:
            lines.append(line)
    return lines


def _drawn(rng: np.random.Generator, shares: Sequence[float]) -> int:
    """1 or more, with these probabilities."""
    return 1 + int(rng.choice(len(shares), p=shares))
