"""Canvases of chips at canonical scale, as the second pass sees them, with their words.

Shapes: N chips or words, 4 corners, 2 coordinates; H x W pixels of an image, side x side of the
canvas; boxes are x0, y0, x1, y1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray
from numpy.random import Generator

from adaptive.textscale.canvas import Chips, compose
from adaptive.textscale.packing import Packing, pack
from adaptive.textscale.train.settings import SampleConfig
from adaptive.textscale.train.views import within
from adaptive.textscale.words import CANONICAL, Words, short_sides

GUTTER = 8  # pixels between chips
FULL = 1.3  # area of the chips and gutters that are drawn; what does not fit is dropped
EMPTY = 0.15  # share of chips without a word: the first pass errs too
MOST = 12  # images looked at for a canvas


def draw_canvas(
    rng: Generator,
    draw_image: Callable[[], tuple[UInt8[ndarray, "_ _ 3"], Words]],
    config: SampleConfig,
) -> tuple[UInt8[ndarray, "side side 3"], Words]:
    """A square canvas of words cut out of several images.

    Args:
        rng: random numbers.
        draw_image: gives an annotated image, another at each call.
        config: side of the canvas, and how far from the canonical scale words may be.
    """
    images: list[ndarray] = []
    every: list[Words] = []
    owners: list[int] = []
    boxes: list[ndarray] = []
    sizes: list[ndarray] = []
    area = 0.0
    while area < FULL * config.side**2 and len(images) < MOST:
        image_HW3, words = draw_image()
        for box_4, size_2 in _draw_chips(rng, image_HW3.shape[:2], words, config):
            owners.append(len(images))
            boxes.append(box_4)
            sizes.append(size_2)
            area += float(np.prod(size_2 + GUTTER))
        images.append(image_HW3)
        every.append(words)
    if not boxes:
        canvas_HW3 = np.full((config.side, config.side, 3), 127, np.uint8)
        return canvas_HW3, Words(np.zeros((0, 4, 2), np.float32), np.zeros(0, bool), ())
    chips = Chips(np.array(owners), np.array(boxes), np.array(sizes))
    chips, place_N2 = _laid_out(chips, config.side)
    single = Packing(np.zeros(len(chips), int), place_N2, np.array([[config.side, config.side]]))
    (canvas_HW3,) = compose(images, chips, single, GUTTER)
    parts = [
        _placed(every[image], chips, chip, place_N2[chip])
        for chip, image in enumerate(chips.image_N)
    ]
    return canvas_HW3, joined(parts)


def _laid_out(chips: Chips, side: int) -> tuple[Chips, Int[ndarray, "N 2"]]:
    """The chips that a canvas of a side has room for, and the place of each.

    They are packed into canvases, and those that fit are laid side by side.
    """
    packing = pack(chips.size_N2, gutter=GUTTER, max_side=side)
    left_M, left = np.full(len(packing.size_M2), -1), 0
    for number, width in enumerate(packing.size_M2[:, 0].tolist()):
        if left + width <= side:
            left_M[number] = left
            left += width
    left_N = left_M[packing.canvas_N]
    stays = np.flatnonzero(left_N >= 0)
    place_N2 = packing.corner_N2 + np.stack([left_N, np.zeros_like(left_N)], 1)
    kept = Chips(chips.image_N[stays], chips.box_N4[stays], chips.size_N2[stays])
    return kept, place_N2[stays]


def joined(parts: list[Words]) -> Words:
    """The words of several lists in one."""
    return Words(
        np.concatenate([part.quad_N42 for part in parts]),
        np.concatenate([part.care_N for part in parts]),
        tuple(text for part in parts for text in part.texts),
    )


def _placed(words: Words, chips: Chips, chip: int, place_2: ndarray) -> Words:
    """The words of an image that a chip shows, where they lie on the canvas."""
    box_4 = chips.box_N4[chip]
    seen = within(words, *box_4.tolist())
    ratio_2 = chips.size_N2[chip] / (box_4[2:] - box_4[:2])
    quad_N42 = (seen.quad_N42 - box_4[:2]) * ratio_2 + place_2
    return replace(seen, quad_N42=quad_N42.astype(np.float32))


def _draw_chips(
    rng: Generator, shape: tuple[int, ...], words: Words, config: SampleConfig
) -> list[tuple[ndarray, ndarray]]:
    """Boxes in an image, and the sizes that bring them to about canonical scale."""
    height, width = shape[:2]
    found = []
    scale_N = np.maximum(short_sides(words.quad_N42), 2.0)
    for word in rng.permutation(np.flatnonzero(words.care_N)):
        box_4 = _padded(words.quad_N42[word], float(scale_N[word]) * rng.uniform(0.5, 1.2))
        scale = scale_N[word]
        if rng.random() < EMPTY:  # the same box elsewhere
            size_2 = box_4[2:] - box_4[:2]
            corner_2 = rng.uniform(0, 1, 2) * np.maximum(1, (width, height) - size_2)
            box_4 = np.concatenate([corner_2, corner_2 + size_2])
        low_2, high_2 = np.maximum(np.floor(box_4[:2]), 0), np.ceil(box_4[2:])
        box_4 = np.concatenate([low_2, np.minimum(high_2, (width, height))]).astype(int)
        spread = np.log(config.packed_spread)
        zoom = min(CANONICAL / scale * np.exp(rng.uniform(-spread, spread)), 4.0)
        size_2 = np.maximum(1, np.rint((box_4[2:] - box_4[:2]) * zoom)).astype(int)
        if (box_4[2:] > box_4[:2]).all() and size_2.max() <= config.side:
            found.append((box_4, size_2))
    return found


def _padded(quad_42: ndarray, by: float) -> ndarray:
    return np.concatenate([quad_42.min(0) - by, quad_42.max(0) + by])
