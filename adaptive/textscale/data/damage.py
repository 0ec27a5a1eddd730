"""What light, lens, sensor and file do to an image.

Shapes: H x W pixels, 3 channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

STRIP = 512
"""Rows that are worked on at a time, so that large pages need little memory."""

Image = UInt8[ndarray, "H W 3"]


def shaded(rng: np.random.Generator, image_HW3: Image) -> Image:
    """Uneven light, another exposure, a cast of colour, sometimes the edge of a shadow."""
    import cv2

    height, width = image_HW3.shape[:2]
    corner_22 = np.exp(rng.normal(0, 0.15, (2, 2))).astype(np.float32)
    cast_3 = (math.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.04, 3))).astype(np.float32)
    light_hw = cv2.resize(corner_22, (64, 64), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.2:
        edge = np.zeros((64, 64), np.float32)
        corner_32 = rng.integers(-32, 96, (3, 2)).astype(np.int32)
        cv2.fillPoly(edge, [corner_32], 1.0)
        edge = cv2.GaussianBlur(edge, (0, 0), rng.uniform(0.5, 3))
        light_hw *= 1 - rng.uniform(0.15, 0.45) * edge
    light_hw3 = light_hw[..., None] * cast_3
    x_W = (np.arange(width, dtype=np.float32) + 0.5) * (64 / width) - 0.5
    y_H = (np.arange(height, dtype=np.float32) + 0.5) * (64 / height) - 0.5

    def light(rows: slice) -> np.ndarray:
        """The rows' part of the small map, enlarged."""
        x_HW, y_HW = np.meshgrid(x_W, y_H[rows])
        return cv2.remap(light_hw3, x_HW, y_HW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    return _by_strips(cv2.multiply, image_HW3, light)


def damaged(rng: np.random.Generator, image_HW3: Image, strength: float) -> tuple[Image, float]:
    """Loss of resolution, blur, motion, noise and JPEG.

    Args:
        rng: source of chance.
        image_HW3: the image.
        strength: factor of all of it; 1 is everyday photography.

    Returns:
        The image, and the standard deviation in pixels of its blur, all causes together: words not
        several times as high cannot be read.
    """
    import cv2

    if strength <= 0:
        return image_HW3, 0.0
    height, width = image_HW3.shape[:2]
    variance = 0.0
    if rng.random() < 0.2:
        factor = 1 + strength * rng.uniform(0.1, 0.8)
        small = (max(1, round(width / factor)), max(1, round(height / factor)))
        image_HW3 = cv2.resize(image_HW3, small, interpolation=cv2.INTER_AREA)
        image_HW3 = cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_LINEAR)
        variance += (0.4 * factor) ** 2
    sigma = min(2.0, abs(rng.normal(0, 0.7))) * strength
    if sigma > 0.3:
        image_HW3 = cv2.GaussianBlur(image_HW3, (0, 0), sigma)
        variance += sigma**2
    if rng.random() < 0.1 * strength:
        length = int(rng.integers(3, 8))
        image_HW3 = cv2.filter2D(image_HW3, -1, _motion(rng, length))
        variance += length**2 / 12
    if rng.random() < 0.7:
        image_HW3 = _noisy(rng, image_HW3, strength * rng.uniform(1, 10))
    if rng.random() < 0.8:
        quality = int(np.clip(100 - strength * rng.uniform(5, 65), 5, 100))
        image_HW3 = _compressed(image_HW3, quality)
    return image_HW3, math.sqrt(variance)


def _motion(rng: np.random.Generator, length: int) -> np.ndarray:
    """A line through the middle of a small square, as a kernel."""
    import cv2

    kernel = np.zeros((length, length), np.float32)
    middle, angle = (length - 1) / 2, rng.uniform(0, np.pi)
    dx, dy = middle * math.cos(angle), middle * math.sin(angle)
    ends = [(round(middle + sign * dx), round(middle + sign * dy)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return kernel / kernel.sum()


def _noisy(rng: np.random.Generator, image_HW3: Image, sigma: float) -> Image:
    """Noise of brightness, a little stronger in one channel than in another."""
    import cv2

    weight_3 = sigma * (1 + 0.15 * rng.standard_normal(3)).astype(np.float32)

    def noise(rows: slice) -> np.ndarray:
        return rng.standard_normal((*image_HW3[rows].shape[:2], 1), np.float32) * weight_3

    return _by_strips(cv2.add, image_HW3, noise)


def _by_strips(
    operation: Callable[..., np.ndarray], image_HW3: Image, other: Callable[[slice], np.ndarray]
) -> Image:
    """An operation of OpenCV on an image and what ``other`` gives for some of its rows."""
    import cv2

    found_HW3 = np.empty_like(image_HW3)
    for top in range(0, image_HW3.shape[0], STRIP):
        rows = slice(top, top + STRIP)
        found_HW3[rows] = operation(image_HW3[rows], other(rows), dtype=cv2.CV_8U)
    return found_HW3


def _compressed(image_HW3: Image, quality: int) -> Image:
    import cv2

    coded = cv2.imencode(".jpg", image_HW3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None, "what was just encoded can be decoded"
    return np.ascontiguousarray(decoded[..., ::-1])
