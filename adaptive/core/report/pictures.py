"""Photographs, pages and canvases with outlines over them.

Shapes: H x W pixels, h x w cells of a map, N outlines of 4 corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from adaptive.core.report.spots import MOST, cell
from adaptive.core.report.style import house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.2  # inches of the page
LONGEST = 1200  # side in pixels of a picture in a page
HALO = "#00000090"  # around outlines, which would be lost on a background of their colour

# Colours over photographs, apart for the common kinds of colour blindness by lightness too.
FOUND, LOOKED, KNOWN, LEFT = "#ff8c1a", "#4db2ff", "#ffffff", "#b4b4b4"


class Outlines(NamedTuple):
    """Quadrilaterals of one meaning.

    Attributes:
        quad_N42: corners x, y in pixels of the picture.
        colour: of the lines.
        style: Matplotlib's line style.
        texts: what pointing at each tells; none where this is empty.
    """

    quad_N42: Sequence[np.ndarray] | np.ndarray
    colour: str
    style: str = "-"
    texts: Sequence[str] = ()


@house_style
def picture_plot(
    image_HW3: UInt8[np.ndarray, "H W 3"],
    outlines: Sequence[Outlines] = (),
    shade_hw: Float[np.ndarray, "h w"] | None = None,
) -> Figure:
    """A picture as wide as the page.

    Args:
        image_HW3: RGB.
        outlines: drawn over it.
        shade_hw: 0 to 1, how dark the picture is made, over the whole of it.
    """
    from matplotlib.figure import Figure

    H, W = image_HW3.shape[:2]
    # A canvas may be a narrow strip: as high as the page is wide, at most.
    width = min(WIDTH, WIDTH * W / H)
    figure = Figure(figsize=(width, width * H / W))
    axes = figure.add_axes((0, 0, 1, 1))
    show_picture(axes, image_HW3, outlines, shade_hw)
    return figure


def show_picture(
    axes: Axes,
    image_HW3: UInt8[np.ndarray, "H W 3"],
    outlines: Sequence[Outlines] = (),
    shade_hw: Float[np.ndarray, "h w"] | None = None,
    longest: int = LONGEST,
) -> None:
    """Fills axes with a picture; their units are its pixels. See :func:`picture_plot`.

    Args:
        longest: side in pixels to which larger pictures are reduced.
    """
    import cv2
    from matplotlib.collections import PolyCollection
    from matplotlib.patheffects import withStroke

    H, W = image_HW3.shape[:2]
    zoom = min(1.0, longest / max(H, W))
    if zoom < 1:
        size = (max(1, round(W * zoom)), max(1, round(H * zoom)))
        image_HW3 = cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)
    axes.imshow(image_HW3, extent=(0, W, H, 0))
    if shade_hw is not None:
        dark_hw4 = np.zeros((*shade_hw.shape, 4), np.float32)
        dark_hw4[..., 3] = shade_hw
        axes.imshow(dark_hw4, extent=(0, W, H, 0), interpolation="bilinear")
    for each in outlines:
        lines = PolyCollection(
            list(each.quad_N42), facecolors="none", edgecolors=each.colour, lw=1.2, ls=each.style
        )
        lines.set_path_effects([withStroke(linewidth=2.6, foreground=HALO)])
        axes.add_collection(lines)
        for quad_42, text in list(zip(each.quad_N42, each.texts, strict=False))[:MOST]:
            (left, top), (right, bottom) = np.min(quad_42, 0), np.max(quad_42, 0)
            cell(axes, float(left), float(right), float(bottom), float(top), text)
    axes.set(xlim=(0, W), ylim=(H, 0))
    axes.set_axis_off()
