"""Packing rectangles into few, small canvases: shelves, and a search over canvas widths.

First fit by decreasing height (Coffman, Garey, Johnson and Tarjan 1980): rectangles in order of
height go to the first shelf with room, or open the next. All candidate widths are tried at once, a
rectangle at a time, so the search costs little more than one packing.

Shapes: N rectangles, C candidate widths, S shelves, M canvases; sizes are width, height in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from adaptive.core.errors import UserError

_WIDTHS = 20


@dataclass(frozen=True)
class Packing:
    """Where rectangles lie.

    Attributes:
        canvas_N: index of the canvas of each rectangle.
        corner_N2: x, y of its top left corner.
        size_M2: width and height of each canvas, multiples of the stride.
    """

    canvas_N: Int[ndarray, " N"]
    corner_N2: Int[ndarray, "N 2"]
    size_M2: Int[ndarray, "M 2"]

    @property
    def pixels(self) -> int:
        """Of all canvases."""
        return int(self.size_M2.prod(1).sum())


def pack(
    size_N2: Int[ndarray, "N 2"],
    *,
    stride: int = 32,
    gutter: int = 8,
    max_side: int = 2048,
    max_pixels: int | None = None,
) -> Packing:
    """Packs rectangles without turning them.

    Args:
        size_N2: width and height of each, at least 1.
        stride: canvas sides are multiples of it.
        gutter: pixels between two rectangles.
        max_side: largest side of a canvas; rounded down to a multiple of the stride.
        max_pixels: largest area of a canvas; one that holds a single row may exceed it.

    Raises:
        UserError: a rectangle that exceeds a canvas of the largest side.
    """
    N = len(size_N2)
    if not N:
        return Packing(np.zeros(0, int), np.zeros((0, 2), int), np.zeros((0, 2), int))
    limit = max_side // stride * stride
    if size_N2.max() > limit:
        raise UserError(
            f"max_side={max_side} is below a chip of {size_N2.max()} pixels: raise it, or lower "
            "the zoom"
        )
    width_C = _candidates(size_N2, stride, gutter, limit)
    order_N = np.lexsort((-size_N2[:, 0], -size_N2[:, 1]))
    shelf_NC, x_NC, height_SC = _shelves(size_N2[order_N], width_C, gutter)
    right_NC = x_NC + size_N2[order_N, :1]
    tall_C = (height_SC + gutter * (height_SC > 0)).sum(0) - gutter
    best = int((_up(right_NC.max(0), stride) * _up(tall_C, stride)).argmin())

    width, shelf_N = int(width_C[best]), shelf_NC[:, best]
    height_S = height_SC[height_SC[:, best] > 0, best]
    most = limit
    if max_pixels is not None:
        most = min(limit, max(max_pixels // width // stride, 1) * stride)
    canvas_S, y_S = _stack(height_S.tolist(), gutter, most)
    size_M2 = np.zeros((canvas_S[-1] + 1, 2), int)
    np.maximum.at(size_M2[:, 0], canvas_S[shelf_N], right_NC[:, best])
    np.maximum.at(size_M2[:, 1], canvas_S, y_S + height_S)
    place_N = np.argsort(order_N)
    shelf_N = shelf_N[place_N]
    corner_N2 = np.stack([x_NC[place_N, best], y_S[shelf_N]], 1)
    return Packing(canvas_S[shelf_N], corner_N2, _up(size_M2, stride))


def _up(pixels: ndarray, stride: int) -> ndarray:
    """The next multiples of the stride."""
    return -(-pixels // stride) * stride


def _candidates(size_N2: ndarray, stride: int, gutter: int, limit: int) -> ndarray:
    """Widths worth trying: from the widest rectangle to one row, more densely near a square."""
    least = -(-int(size_N2[:, 0].max()) // stride)
    row = -(-int((size_N2[:, 0] + gutter).sum() - gutter) // stride)
    most = max(least, min(row, limit // stride))
    square = np.sqrt((size_N2 + gutter).prod(1).sum()) / stride
    most = max(least, min(most, int(np.ceil(3 * square))))
    if most - least < _WIDTHS:
        return np.arange(least, most + 1) * stride
    return np.unique(np.geomspace(least, most, _WIDTHS).round().astype(int)) * stride


def _shelves(size_N2: ndarray, width_C: ndarray, gutter: int) -> tuple[ndarray, ndarray, ndarray]:
    """First fit at every width: shelf [N, C] and x [N, C] of each rectangle, heights [N, C]."""
    N, C = len(size_N2), len(width_C)
    column_C = np.arange(C)
    room_CS = np.repeat((width_C + gutter)[:, None], N, 1)
    height_SC = np.zeros((N, C), int)
    shelf_NC, x_NC = np.zeros((N, C), int), np.zeros((N, C), int)
    opened = 1
    for n, (w, h) in enumerate(size_N2.tolist()):
        shelf_C = (room_CS[:, :opened] >= w + gutter).argmax(1)  # an unopened one always fits
        x_NC[n] = width_C + gutter - room_CS[column_C, shelf_C]
        room_CS[column_C, shelf_C] -= w + gutter
        shelf_NC[n] = shelf_C
        height_SC[shelf_C, column_C] = np.maximum(height_SC[shelf_C, column_C], h)
        opened = min(N, max(opened, int(shelf_C.max()) + 2))
    return shelf_NC, x_NC, height_SC


def _stack(height_S: list[int], gutter: int, most: int) -> tuple[ndarray, ndarray]:
    """Canvas and y of each shelf: one below the other, the next canvas at height ``most``."""
    canvas_S, y_S, canvas, y = [], [], 0, 0
    for height in height_S:
        if y and y + height > most:
            canvas, y = canvas + 1, 0
        canvas_S.append(canvas)
        y_S.append(y)
        y += height + gutter
    return np.array(canvas_S), np.array(y_S)
