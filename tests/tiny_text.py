"""A text network of two hundred thousand weights, and pictures of words to teach it with.

Shapes: N words, 4 corners, 2 coordinates, H x W pixels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy import ndarray

from adaptive.textscale.network import NetSize, TextNet
from adaptive.textscale.words import Words

SIZE = NetSize("test_efficientnet", 16)


def make_net(seed: int = 0) -> TextNet:
    """Untrained, in evaluation mode."""
    torch.manual_seed(seed)
    return TextNet(SIZE).eval()


def rectangle(x: float, y: float, width: float, height: float, angle: float = 0.0) -> ndarray:
    """Corners of a rectangle by its centre, clockwise on the screen, [4, 2]."""
    corner_42 = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2)
    turn_22 = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return (corner_42 @ turn_22.T + (x, y)).astype(np.float32)


def make_words(*quads: ndarray, care: list[bool] | None = None) -> Words:
    """Words of these quads."""
    count = len(quads)
    quad_N42 = np.array(quads, np.float32).reshape(count, 4, 2)
    return Words(quad_N42, np.array(care or [True] * count, bool), ("word",) * count)


def make_scene(seed: int, height: int = 160, width: int = 192) -> tuple[ndarray, Words]:
    """Four words of dark stripes, in a light box each, on a grey wall."""
    rng = np.random.default_rng(seed)
    image_HW3 = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
    quads = []
    for row in range(2):
        for column in range(2):
            x = width * (column + 0.5) / 2 + rng.uniform(-6, 6)
            y = height * (row + 0.5) / 2 + rng.uniform(-8, 8)
            wide, high = rng.uniform(44, 72), rng.uniform(14, 28)
            quad_42 = rectangle(x, y, wide, high)
            low_2, high_2 = quad_42[0].astype(int), quad_42[2].astype(int)
            cv2.rectangle(image_HW3, low_2.tolist(), high_2.tolist(), (230, 230, 230), -1)
            for stripe in range(low_2[0] + 3, high_2[0] - 2, 7):
                top, bottom = low_2[1] + 3, high_2[1] - 3
                cv2.line(image_HW3, (stripe, top), (stripe, bottom), (20, 20, 20), 2)
            quads.append(quad_42)
    return image_HW3, make_words(*quads)


class Scenes(list):
    """``(name, image_HW3, words)`` of several scenes."""

    def __init__(self, count: int, first: int = 0):
        super().__init__((f"s{i}", *make_scene(i)) for i in range(first, first + count))
