"""Cores of words: quads shrunk until neighbours come apart, and grown back.

The core of a word is its quad with every side moved inwards by ``d = A (1 - r^2) / L``, A its area
and L its perimeter, as in PSENet (Wang et al. 2019, arXiv:1903.12473, equation 1), for quads in
closed form. d is below the radius of the largest circle in any convex quad, which is at least
A / L, so no core is empty. A word of few pixels is shrunk less, or no cell of the map would see its
core; then the core says nothing of the word's size, and the scale head does.

Shapes: N words, 4 corners, 2 coordinates, P points in a core, h x w cells.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32
from numpy import ndarray

from adaptive.textscale.postprocess import boxes_of_map
from adaptive.textscale.words import CANONICAL, Detections, TextMaps

SHRINK = 0.6
"""r: side of the core of a large square word, as a share of the word's."""

STRIDE = 4
"""Pixels of a cell; a core is a cell wide at least, where the word is."""

FINER = 4
"""Outlines are drawn on a map as fine as the pixels: they join centres of cells."""

MOST = 1.5
"""Growth beyond this multiple of what the core's own size says is a mistake of the scale."""


def boxes_by_scale(
    maps: TextMaps, *, threshold: float, box_threshold: float, grow: float, min_side: float
) -> Detections:
    """Words whose cores a map shows, as large as its scales say.

    The core's short side and the word's scale give the distance that the core was shrunk by. (On
    perfect maps, words of 8, 12 and 20 pixels at random angles are found with an IoU of 0.83, 0.94
    and 0.96 on average; growing by area over perimeter, as differentiable binarisation does, at the
    map's own resolution gives 0.44, 0.61 and 0.74.)

    Args:
        maps: of a network.
        threshold: cells with a higher probability are in a core.
        box_threshold: least mean probability in a core, which is the score.
        grow: factor of the distance.
        min_side: least short side of a word in pixels.

    Returns:
        Rectangles, in pixels of the network's input; they may reach beyond it.
    """
    h, w = maps.probability_hw.shape
    fine_hw = cv2.resize(maps.probability_hw, (w * FINER, h * FINER))
    cores = boxes_of_map(
        fine_hw,
        threshold=threshold,
        box_threshold=box_threshold,
        unclip_ratio=0,
        min_side=0,
        stride=maps.stride / FINER,
    )
    if not len(cores):
        return cores
    side_N2 = np.linalg.norm(cores.quad_N42[:, 1:3] - cores.quad_N42[:, :2], axis=2)
    scale_N = CANONICAL * np.exp(_middle(maps, cores.quad_N42))
    short_N = side_N2.min(1)
    # Below 0 where a core of a cell's width straddles two rows of cells and looks twice as wide.
    distance_N = np.clip((scale_N - short_N) / 2, -short_N / 3, MOST * grow_distances(side_N2))
    distance_N = distance_N * grow
    kept_N = short_N + 2 * distance_N >= min_side
    quad_N42 = offset(cores.quad_N42, -distance_N)
    return Detections(quad_N42[kept_N], cores.score_N[kept_N])


def clockwise(quad_N42: Float32[ndarray, "N 4 2"]) -> Float32[ndarray, "N 4 2"]:
    """The quads with corners clockwise on the screen, whichever way they were."""
    turned_N = _doubled_areas(quad_N42) < 0
    return np.where(turned_N[:, None, None], quad_N42[:, ::-1], quad_N42)


def convex(quad_N42: Float32[ndarray, "N 4 2"]) -> Bool[ndarray, " N"]:
    """Which clockwise quads are convex, with four corners that differ."""
    edge_N42 = np.roll(quad_N42, -1, 1) - quad_N42
    return (_cross(edge_N42, np.roll(edge_N42, -1, 1)) > 0).all(1)


def shrink_distances(
    quad_N42: Float32[ndarray, "N 4 2"], scale_N: Float32[ndarray, " N"]
) -> Float[ndarray, " N"]:
    """By how many pixels the sides of each quad move inwards to become its core's.

    Args:
        quad_N42: convex.
        scale_N: short sides in pixels. A core is a cell wide at least, where the word is.
    """
    perimeter_N = np.linalg.norm(np.roll(quad_N42, -1, 1) - quad_N42, axis=2).sum(1)
    inset_N = np.abs(_doubled_areas(quad_N42)) / 2 * (1 - SHRINK**2) / perimeter_N
    return np.clip(inset_N, 0, np.maximum(0, (scale_N - STRIDE) / 2))


def offset(
    quad_N42: Float32[ndarray, "N 4 2"], distance_N: Float[ndarray, " N"]
) -> Float32[ndarray, "N 4 2"]:
    """Clockwise, convex quads with every side moved inwards, in parallel.

    Args:
        quad_N42: the quads.
        distance_N: in pixels; below 0 the sides move outwards.
    """
    edge_N42 = np.roll(quad_N42, -1, 1) - quad_N42
    unit_N42 = edge_N42 / np.linalg.norm(edge_N42, axis=2, keepdims=True)
    before_N42 = np.roll(unit_N42, 1, 1)
    # A corner moves by d along both neighbours' normals: by d (u_next - u_before) / sin.
    sine_N4 = np.maximum(_cross(before_N42, unit_N42), 0.1)  # a nearly straight corner stays near
    moved_N42 = (unit_N42 - before_N42) * (distance_N[:, None] / sine_N4)[:, :, None]
    return (quad_N42 + moved_N42).astype(np.float32)


def grow_distances(side_N2: Float[ndarray, "N 2"]) -> Float[ndarray, " N"]:
    """By how many pixels the sides of rectangular cores move outwards to become the words'.

    The inverse of ``d = A (1 - r^2) / L`` for words that are not shrunk less: with k = 1 - r^2,
    A' = w' h' and S' = w' + h' of the core, d solves (8 - 4k) d^2 + 2 (1 - k) S' d - k A' = 0.

    Args:
        side_N2: width and height of the cores in pixels, above 0.
    """
    k = 1 - SHRINK**2
    a, half_b_N = 8 - 4 * k, (1 - k) * side_N2.sum(1)
    return (np.sqrt(half_b_N**2 + a * k * side_N2.prod(1)) - half_b_N) / a


def _middle(maps: TextMaps, quad_N42: Float32[ndarray, "N 4 2"]) -> Float[ndarray, " N"]:
    """Median of the log-scale in each core: of the likelier of 5 x 3 points.

    The others may lie beside the cells of a thin core, where the map means nothing.
    """
    along_P, across_P = (g.ravel() for g in np.meshgrid((np.arange(5) + 0.5) / 5, (0.2, 0.5, 0.8)))
    top_N12, right_N12 = quad_N42[:, :1], quad_N42[:, 1:2] - quad_N42[:, :1]
    down_N12 = quad_N42[:, 3:] - top_N12
    point_NP2 = top_N12 + along_P[:, None] * right_N12 + across_P[:, None] * down_N12
    row_NP, column_NP = (
        np.clip(point_NP2[..., axis] // maps.stride, 0, size - 1).astype(int)
        for axis, size in zip((1, 0), maps.log_scale_hw.shape, strict=True)
    )
    chance_NP = maps.probability_hw[row_NP, column_NP]
    likely_NP = chance_NP >= np.median(chance_NP, 1, keepdims=True)
    return np.nanmedian(np.where(likely_NP, maps.log_scale_hw[row_NP, column_NP], np.nan), 1)


def _doubled_areas(quad_N42: ndarray) -> ndarray:
    """Twice the signed areas: above 0 where corners run clockwise on the screen."""
    return _cross(quad_N42, np.roll(quad_N42, -1, 1)).sum(1)


def _cross(a_N42: ndarray, b_N42: ndarray) -> ndarray:
    return a_N42[..., 0] * b_N42[..., 1] - a_N42[..., 1] * b_N42[..., 0]
