"""Pictures of images with the borders of their patches.

Shapes: B images, N leaves of each, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

from adaptive.core.report.style import PAPER, house_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4


@house_style
def mosaic_plot(
    pixel_B3HW: UInt8[np.ndarray, "B 3 H W"],
    box_BN3: Sequence[Int[np.ndarray, "_ 3"]] | Int[np.ndarray, "B N 3"],
    titles: Sequence[str] = (),
    columns: int = COLUMNS,
) -> Figure:
    """Images as a quadtree model sees them: coarse patches in their few pixels, with borders.

    Args:
        pixel_B3HW: bytes of RGB images.
        box_BN3: top row, left column and side of each leaf in pixels; images may differ in number.
        titles: above the images.
        columns: images side by side, at most.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    count = len(pixel_B3HW)
    height = 8.2 / columns + 0.1  # the page's width is shared, titles stand above
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(8.2, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for number, axes in enumerate(grid[:count]):
        box_N3 = np.asarray(box_BN3[number])
        axes.imshow(seen(pixel_B3HW[number], box_N3), interpolation="nearest")
        top, left, side = box_N3.T - np.array([[0.5], [0.5], [0]])
        corners = [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]
        outline_N42 = np.stack([np.stack(corner, -1) for corner in corners], 1)
        borders = PolyCollection(list(outline_N42), facecolors="none", edgecolors=PAPER, lw=0.4)
        axes.add_collection(borders)
        if titles:
            axes.set_title(titles[number], fontsize=8.5)
    return figure


def seen(
    pixel_3HW: UInt8[np.ndarray, "3 H W"], box_N3: Int[np.ndarray, "N 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The image with every leaf at the resolution of the smallest, block means in place."""
    image_HW3 = pixel_3HW.transpose(1, 2, 0).copy()
    finest = box_N3[:, 2].min()
    for top, left, side in box_N3:
        block = image_HW3[top : top + side, left : left + side]
        factor = side // finest
        shape = (side // factor, factor, side // factor, factor, 3)
        mean = block.reshape(shape).mean((1, 3), keepdims=True)
        block[:] = np.broadcast_to(mean.round(), shape).reshape(block.shape)
    return image_HW3
