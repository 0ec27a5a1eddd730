"""How flat text is seen: turned in space, projected, and warped with its corners.

Coordinates are x, y with the corner of the first pixel at 0, 0; a homography is a matrix that acts
on ``(x, y, 1)`` and divides by the third coordinate.

Shapes: N points, h x w pixels of a layer, H x W of an image, C channels.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

Matrix33 = Float[ndarray, "3 3"]


def random_view(rng: np.random.Generator, width: float, height: float) -> Matrix33:
    """A view of a rectangle around the origin as a pinhole camera may have it.

    Most text is nearly upright; one in six is turned by up to 45 degrees, one in fifty runs up or
    down.

    Args:
        rng: source of chance.
        width: of the rectangle.
        height: of the rectangle, in the same unit.
    """
    kind = rng.random()
    if kind < 0.8:
        roll = rng.normal(0, 5)
    elif kind < 0.98:
        roll = rng.uniform(-45, 45)
    else:
        roll = rng.choice([-90, 90]) + rng.normal(0, 3)
    yaw = float(np.clip(rng.normal(0, 20), -50, 50))
    pitch = float(np.clip(rng.normal(0, 12), -40, 40))
    focal = rng.uniform(1.5, 5) * max(width, height)
    slant = rng.normal(0, 0.08)
    stretch = math.exp(rng.normal(0, 0.18))
    turn_33 = _turn(roll, 2) @ _turn(yaw, 1) @ _turn(pitch, 0)
    view_33 = np.eye(3)
    view_33[:2, :2] = turn_33[:2, :2]
    view_33[2, :2] = turn_33[2, :2] / focal
    return view_33 @ np.array([[stretch, slant, 0], [0, 1, 0], [0, 0, 1]])


def shift(x: float, y: float) -> Matrix33:
    """Moves by x, y."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float)


def scale(x: float, y: float) -> Matrix33:
    """Multiplies coordinates."""
    return np.diag([x, y, 1.0]).astype(float)


def transform(matrix_33: Matrix33, point_N42: Float[ndarray, "*N 2"]) -> Float[ndarray, "*N 2"]:
    """Points where the homography puts them."""
    moved = point_N42 @ matrix_33[:, :2].T + matrix_33[:, 2]
    return moved[..., :2] / moved[..., 2:]


def warp(
    layer_hwC: UInt8[ndarray, "h w *C"], matrix_33: Matrix33, width: int, height: int, fine: int = 1
) -> UInt8[ndarray, "H W *C"]:
    """An image as the homography shows it, black where there is nothing of it.

    Args:
        layer_hwC: pixels, with or without channels.
        matrix_33: from coordinates of the layer to those of the result.
        width: of the result in pixels.
        height: of the result in pixels.
        fine: samples a pixel and direction, whose mean is taken.
    """
    import cv2

    # OpenCV counts from the centres of pixels.
    centred_33 = shift(-0.5, -0.5) @ scale(fine, fine) @ matrix_33 @ shift(0.5, 0.5)
    warped = cv2.warpPerspective(
        layer_hwC, centred_33, (width * fine, height * fine), flags=cv2.INTER_LINEAR
    )
    if fine > 1:
        warped = cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA)
    return warped


def _turn(degrees: float, axis: int) -> Matrix33:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    one, other = [(1, 2), (0, 2), (0, 1)][axis]
    turn_33 = np.eye(3)
    turn_33[one, one] = turn_33[other, other] = c
    turn_33[one, other], turn_33[other, one] = -s, s
    return turn_33
