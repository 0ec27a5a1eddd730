"""What the network should say of an image whose words are known.

Every target is the share of a cell's pixels that lie in a polygon, so a word whose outline moves by
a pixel has another target though it covers the same cells.
Cores are of :mod:`adaptive.textscale.cores`.

Shapes: N words, 4 corners, 2 coordinates, H x W pixels, h x w cells, 5 kinds of target.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from adaptive.textscale.cores import STRIDE, clockwise, convex, offset, shrink_distances
from adaptive.textscale.words import CANONICAL, Words, short_sides

LEAST = 4.0
"""Short side in pixels below which a word counts neither as text nor as background."""


@dataclass(frozen=True)
class Targets:
    """Maps at stride 4.

    Attributes:
        text_hw: share of the cell in the core of a word, 0 to 1.
        border_hw: share of the cell in the band around the outline of a word, 0 to 1.
        care_hw: 1 where the network is judged, 0 where it may say anything.
        log_scale_hw: ``ln(s / 32)`` in the cores of words.
        share_hw: 1 / (cells of its word) in the cores of words, else 0; each word sums to 1.
    """

    text_hw: Float32[ndarray, "h w"]
    border_hw: Float32[ndarray, "h w"]
    care_hw: Float32[ndarray, "h w"]
    log_scale_hw: Float32[ndarray, "h w"]
    share_hw: Float32[ndarray, "h w"]

    def stacked(self) -> Float32[ndarray, "5 h w"]:
        """All maps in the order of the attributes."""
        maps = (self.text_hw, self.border_hw, self.care_hw, self.log_scale_hw, self.share_hw)
        return np.stack(maps)


def targets(words: Words, height: int, width: int) -> Targets:
    """The targets of an image.

    Args:
        words: of the image; its don't-care words, those with a short side under 4 pixels and those
            that are not convex are neither text nor background.
        height: of the image in pixels, a multiple of 4.
        width: likewise.
    """
    assert height % STRIDE == 0 and width % STRIDE == 0
    quad_N42 = clockwise(words.quad_N42)
    scale_N = short_sides(quad_N42)
    judged_N = words.care_N & (scale_N >= LEAST) & convex(quad_N42)
    ignored_HW = _filled(quad_N42[~judged_N], height, width)
    # Large words first: a small word on top of a large one is a word of its own.
    order_N = np.flatnonzero(judged_N)[np.argsort(-scale_N[judged_N], kind="stable")]
    quad_N42, scale_N = quad_N42[order_N], scale_N[order_N]
    inset_N = shrink_distances(quad_N42, scale_N)
    core_HW = np.zeros((height, width), np.uint16)  # number of the word, from 1
    for number, quad_42 in enumerate(_pixels(offset(quad_N42, inset_N)), 1):
        _fill(core_HW, quad_42, number)
    band_HW = np.zeros((height, width), np.uint8)
    half_N = np.maximum(inset_N / 2, STRIDE / 4)
    for distance_N, value in ((-half_N, 1), (half_N, 0)):
        for quad_42 in _pixels(offset(quad_N42, distance_N)):
            _fill(band_HW, quad_42, value)
    text_hw, border_hw = (_coverage(part) for part in ((core_HW > 0).astype(np.uint8), band_HW))
    number_hw = _most(core_HW)
    # A thin core that straddles rows of cells may fill none by half: then its fullest ones count.
    full_N1 = np.zeros(len(order_N) + 1, np.float32)
    np.maximum.at(full_N1, number_hw, text_hw)
    number_hw = number_hw * (text_hw >= np.minimum(0.5, full_N1[number_hw]))
    cells_N1 = np.bincount(number_hw.ravel(), minlength=len(order_N) + 1)
    share_N1 = np.zeros(len(order_N) + 1, np.float32)
    np.divide(1, cells_N1, out=share_N1, where=cells_N1 > 0)
    share_N1[0] = 0
    z_N1 = np.concatenate([[0], np.log(scale_N / CANONICAL)]).astype(np.float32)
    care_hw = ((_coverage(ignored_HW) == 0) | (text_hw > 0)).astype(np.float32)
    return Targets(text_hw, border_hw, care_hw, z_N1[number_hw], share_N1[number_hw])


def _pixels(quad_N42: ndarray) -> ndarray:
    """Half a pixel smaller on all sides, as OpenCV fills the pixels of the outline too."""
    return offset(quad_N42, np.full(len(quad_N42), 0.5))


def _fill(map_HW: ndarray, quad_42: ndarray, value: int) -> None:
    """Sets the pixels of a convex quad; 16ths of a pixel count.

    OpenCV's filling of any polygon is three times less exact than that of convex ones.
    """
    cv2.fillConvexPoly(map_HW, np.rint((quad_42 - 0.5) * 16).astype(np.int32), value, shift=4)


def _filled(quad_N42: ndarray, height: int, width: int) -> ndarray:
    map_HW = np.zeros((height, width), np.uint8)
    for quad_42 in quad_N42:
        _fill(map_HW, cv2.convexHull(quad_42)[:, 0], 1)
    return map_HW


def _most(map_HW: ndarray) -> ndarray:
    """The greatest value in each cell."""
    rows_hW = np.maximum.reduce([map_HW[row::STRIDE] for row in range(STRIDE)])
    return np.maximum.reduce([rows_hW[:, column::STRIDE] for column in range(STRIDE)])


def _coverage(mask_HW: ndarray) -> Float32[ndarray, "h w"]:
    """Share of each cell's pixels that are 1, in sixteenths."""
    height, width = mask_HW.shape
    size = (width // STRIDE, height // STRIDE)
    # Bytes, which OpenCV averages four times as fast as floats; 240 = 16 x 15 survives that.
    mean_hw = cv2.resize(mask_HW * np.uint8(240), size, interpolation=cv2.INTER_AREA)
    return mean_hw.astype(np.float32) / 240
