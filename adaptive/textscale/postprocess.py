"""From a map of text probability to boxes of words: differentiable binarisation's last step.

After Liao et al. 2020 (DB, arXiv:1911.08947), section 3.4: threshold, contours, smallest
rectangles, and each grown by what the labels had been shrunk by; here in closed form, as a grown
rectangle needs no polygon library.

Shapes: h x w cells of the map, M contours, N words kept, 4 corners, 2 coordinates.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from adaptive.textscale.words import Detections


def boxes_of_map(
    probability_hw: Float32[ndarray, "h w"],
    *,
    threshold: float = 0.3,
    box_threshold: float = 0.5,
    unclip_ratio: float = 1.5,
    min_side: float = 3.0,
    stride: float = 4,
    max_candidates: int = 3000,
) -> Detections:
    """Boxes of the words whose shrunk cores a map shows.

    Args:
        probability_hw: that each cell lies in the core of a word, 0 to 1.
        threshold: cells above it are text.
        box_threshold: least mean probability in the core of a word, which is also its score.
        unclip_ratio: r of the distance ``area * r / perimeter`` by which each side of a core is
            moved outwards.
        min_side: least short side of a grown box, in pixels of the network's input.
        stride: pixels of the network's input for each cell of the map.
        max_candidates: cores looked at, which bounds the time that noise can cost.

    Returns:
        Rectangles, in pixels of the network's input; they may reach beyond it.
    """
    text_hw = (probability_hw > threshold).astype(np.uint8)
    # Two levels of hierarchy: outlines of words, also inside of frames, without outlines of holes.
    contours, levels = cv2.findContours(text_hw, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return Detections.none()
    outer = [c for c, level in zip(contours, levels[0], strict=True) if level[3] < 0]
    rects = [cv2.minAreaRect(contour) for contour in outer[:max_candidates]]
    centre_M2 = np.array([rect[0] for rect in rects])
    side_M2 = np.array([rect[1] for rect in rects])
    axis_M22 = _axes(np.array([rect[2] for rect in rects]))
    score_M = _mean_inside(probability_hw, _corners(centre_M2, side_M2, axis_M22))
    centre_M2 += 0.5  # contours join centres of cells, counted from 0
    # A rectangle through the centres of cells lacks half a cell at each end where it runs along the
    # rows; tilted, its long sides meet centres that lie right on them. (Measured: this is within
    # 0.2 cells of the mean loss for 3 to 40 cells at any angle.)
    sine_M1 = np.abs(axis_M22[:, 0]).min(1, keepdims=True)
    side_M2 = side_M2 + np.maximum(0, 1 - (side_M2[:, ::-1] + 1) * sine_M1)
    grown_M2 = side_M2 + unclip_ratio * side_M2.prod(1, keepdims=True) / side_M2.sum(
        1, keepdims=True
    )  # each side moves by d = w h r / (2 (w + h))
    kept_M = (score_M >= box_threshold) & (grown_M2.min(1) * stride >= min_side)
    quad_N42 = _corners(centre_M2, grown_M2, axis_M22)[kept_M] * stride
    return Detections(quad_N42.astype(np.float32), score_M[kept_M].astype(np.float32))


def _axes(degrees_M: ndarray) -> ndarray:
    """Unit vectors along the width and the height of OpenCV's rotated rectangles, [M, 2, 2]."""
    angle_M = np.deg2rad(degrees_M)
    cos_M, sin_M = np.cos(angle_M), np.sin(angle_M)
    return np.stack([np.stack([cos_M, sin_M], 1), np.stack([-sin_M, cos_M], 1)], 1)


def _corners(centre_M2: ndarray, side_M2: ndarray, axis_M22: ndarray) -> ndarray:
    """Corners, clockwise on the screen from the one that is nearest to the top left, [M, 4, 2]."""
    half_M22 = axis_M22 * side_M2[:, :, None] / 2
    along_M2, across_M2 = half_M22[:, 0], half_M22[:, 1]
    corner_M42 = centre_M2[:, None] + np.stack(
        [
            -along_M2 - across_M2,
            along_M2 - across_M2,
            along_M2 + across_M2,
            across_M2 - along_M2,
        ],
        1,
    )
    first_M = corner_M42.sum(2).argmin(1)
    order_M4 = (first_M[:, None] + np.arange(4)) % 4
    return np.take_along_axis(corner_M42, order_M4[:, :, None], 1)


def _mean_inside(probability_hw: ndarray, quad_M42: ndarray) -> ndarray:
    """Mean probability over the cells in each quad through centres of cells, [M]."""
    h, w = probability_hw.shape
    low_M2 = np.clip(np.floor(quad_M42.min(1)).astype(int), 0, (w - 1, h - 1))
    high_M2 = np.clip(np.ceil(quad_M42.max(1)).astype(int), 0, (w - 1, h - 1)) + 1
    corner_M42 = np.rint(quad_M42 - low_M2[:, None]).astype(np.int32)
    mean_M = np.zeros(len(quad_M42))
    for i, ((x0, y0), (x1, y1)) in enumerate(zip(low_M2, high_M2, strict=True)):
        inside_hw = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillConvexPoly(inside_hw, corner_M42[i], 1)
        mean_M[i] = cv2.mean(probability_hw[y0:y1, x0:x1], inside_hw)[0]
    return mean_M
