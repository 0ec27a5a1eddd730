"""Parts of annotated images as training sees them: one map of the plane for pixels and words alike.

Shapes: N words, 4 corners, 2 coordinates, H x W pixels; a map is [2, 3], from an image's x, y, 1 to
a view's x, y.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from numpy.random import Generator

from adaptive.textscale.train.settings import SampleConfig
from adaptive.textscale.words import Words, short_sides

WHOLE = 0.9
"""Share of a word's area that must be seen; one cut off further is not cared about."""

SHRINK_FIRST = 0.8
"""Images that get smaller than this are averaged over areas first, or they would alias."""


def draw_map(
    rng: Generator,
    words: Words,
    height: int,
    width: int,
    config: SampleConfig,
    anchors: Float[ndarray, " N"] | None = None,
) -> Float[ndarray, "2 3"]:
    """A random view: a word at a random size, near the middle, turned and stretched a little.

    Args:
        rng: random numbers.
        words: of the image.
        height: of the image in pixels.
        width: likewise.
        config: ranges.
        anchors: how often each word is to be the one, in proportion; None: those to be cared
            about, all the same.
    """
    chance_N = words.care_N.astype(float) if anchors is None else anchors
    centre_2 = rng.uniform(0, 1, 2) * (width, height)
    scale = 32.0
    if chance_N.sum() > 0 and rng.random() >= config.anywhere:
        word = rng.choice(len(words), p=chance_N / chance_N.sum())
        centre_2 = words.quad_N42[word].mean(0)
        scale = float(short_sides(words.quad_N42[word : word + 1])[0])
    least, most = config.zoom
    zoom = min(max(_log_uniform(rng, *config.scale) / max(scale, 1.0), least), most)
    ratio = math.sqrt(_log_uniform(rng, 1 / config.stretch, config.stretch))
    angle = math.radians(rng.uniform(-config.rotate, config.rotate))
    if rng.random() < config.turn:
        angle += rng.choice([-1, 1]) * math.pi / 2
    cosine, sine = math.cos(angle), math.sin(angle)
    linear_22 = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([zoom * ratio, zoom / ratio])
    place_2 = rng.uniform(0.15, 0.85, 2) * config.side
    shift_2 = place_2 - linear_22 @ centre_2
    # As much of the image as there is room for, and all of a small one: margins teach nothing.
    corner_42 = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ linear_22.T
    low_2, high_2 = corner_42.min(0), corner_42.max(0)
    ends_22 = np.sort([config.side - high_2, -low_2], 0)
    shift_2 = np.clip(shift_2, *ends_22)
    return np.column_stack([linear_22, shift_2])


def show(
    image_HW3: UInt8[ndarray, "H W 3"], words: Words, map_23: Float[ndarray, "2 3"], side: int
) -> tuple[UInt8[ndarray, "side side 3"], Words]:
    """The view, and the words in it.

    Args:
        image_HW3: the image.
        words: of the image.
        map_23: from the image to the view.
        side: of the view in pixels.
    """
    quad_N42 = apply(map_23, words.quad_N42)
    shrink = math.sqrt(abs(np.linalg.det(map_23[:, :2])))
    if shrink < SHRINK_FIRST:
        image_HW3, corner_2 = _seen(image_HW3, map_23, side)
        height, width = (max(1, round(n * shrink)) for n in image_HW3.shape[:2])
        by_2 = np.array([image_HW3.shape[1] / width, image_HW3.shape[0] / height])
        shift_2 = map_23[:, 2] + map_23[:, :2] @ corner_2
        image_HW3 = cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_AREA)
        map_23 = np.column_stack([map_23[:, :2] * by_2, shift_2])
    # Corners of pixels are at integers here, centres are in OpenCV.
    half_2 = np.full(2, 0.5)
    shift_2 = map_23[:, 2] + map_23[:, :2] @ half_2 - half_2
    view_HW3 = cv2.warpAffine(
        image_HW3,
        np.column_stack([map_23[:, :2], shift_2]),
        (side, side),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=cv2.mean(image_HW3)[:3],
    )
    return view_HW3, within(replace(words, quad_N42=quad_N42), 0, 0, side, side)


def _seen(image_HW3: ndarray, map_23: ndarray, side: int) -> tuple[ndarray, ndarray]:
    """The part of the image that a view shows, a little more around it, and where it begins."""
    inverse_22 = np.linalg.inv(map_23[:, :2])
    view_42 = np.array([[0, 0], [side, 0], [side, side], [0, side]]) - map_23[:, 2]
    seen_42 = view_42 @ inverse_22.T
    around = 2 * np.abs(inverse_22).sum()  # pixels: a few of the view
    most_2 = np.array(image_HW3.shape[1::-1])
    low_2 = np.clip(np.floor(seen_42.min(0) - around), 0, most_2 - 1).astype(int)
    high_2 = np.clip(np.ceil(seen_42.max(0) + around), low_2 + 1, most_2).astype(int)
    return image_HW3[low_2[1] : high_2[1], low_2[0] : high_2[0]], low_2


def apply(
    map_23: Float[ndarray, "2 3"], quad_N42: Float32[ndarray, "N 4 2"]
) -> Float32[ndarray, "N 4 2"]:
    """The quads, mapped."""
    return (quad_N42 @ map_23[:, :2].T + map_23[:, 2]).astype(np.float32)


def within(words: Words, x0: float, y0: float, x1: float, y1: float) -> Words:
    """The words that a box shows.

    Words outside are left out. Of those that reach over its edge by more than a tenth of their
    area, what is seen stays, not to be cared about.

    Args:
        words: of the image.
        x0: left edge of the box in pixels.
        y0: upper edge.
        x1: right edge.
        y1: lower edge.
    """
    low_N2, high_N2 = words.quad_N42.min(1), words.quad_N42.max(1)
    seen_N = (high_N2 > (x0, y0)).all(1) & (low_N2 < (x1, y1)).all(1)
    cut_N = seen_N & ((low_N2 < (x0, y0)).any(1) | (high_N2 > (x1, y1)).any(1))
    quad_N42, care_N = words.quad_N42.copy(), words.care_N.copy()
    box_42 = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)
    for word in np.flatnonzero(cut_N):
        part_N12 = cv2.intersectConvexConvex(cv2.convexHull(quad_N42[word]), box_42)[1]
        if part_N12 is None or len(part_N12) < 3:
            seen_N[word] = False
        elif cv2.contourArea(part_N12) < WHOLE * cv2.contourArea(quad_N42[word]):
            quad_N42[word] = cv2.boxPoints(cv2.minAreaRect(part_N12))
            care_N[word] = False
    texts = tuple(text for text, seen in zip(words.texts, seen_N, strict=True) if seen)
    return Words(quad_N42[seen_N], care_N[seen_N], texts)


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))
