"""The second look as a choice problem: for each region skip, keep the boxes of pass 1, or a zoom.

The loss of an option is the number of words that it is expected to miss (and what false alarms
cost, see :func:`menu_of`), its cost the pixels that it puts on a canvas. The core solves it with a
certificate: under limits, or, without any, for the fewest pixels at which hardly a word is lost.

Shapes: R regions, Z zooms, K = 2 + Z options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from adaptive.core import RESOURCES, Allocation, ChoiceProblem, Resource, solve
from adaptive.textscale.latency import LatencyModel
from adaptive.textscale.recall import RecallCurve
from adaptive.textscale.regions import Regions
from adaptive.textscale.settings import AdaptConfig

SKIP, KEEP = 0, 1
"""Options of every region; further ones are zooms."""

SOLVER = "lagrangian"
GAP = 1e-2  # of the expected misses, whose estimates are far less certain
# Pixels of canvases for each pixel of chips with their gutters: what shelves leave empty.
PACKING = 1.12
# A zoom must show text at least this much larger than pass 1 did.
_LARGER = 1.15

if "misses" not in RESOURCES:
    RESOURCES.register("misses")(Resource("misses", "words", "count", ("word",)))


@dataclass(frozen=True)
class Menu:
    """Options of each region.

    Attributes:
        loss_RK: words that each option is expected to miss; inf where there is no such option.
        pixels_RK: canvas pixels of each option, gutters and empty parts included.
        zoom_RK: canvas pixels for each pixel of the image; 0 for skip and keep.
        size_RK2: width and height of the chip.
        words_R: words that are expected, there being text or not.
    """

    loss_RK: Float[ndarray, "R K"]
    pixels_RK: Float[ndarray, "R K"]
    zoom_RK: Float[ndarray, "R K"]
    size_RK2: Int[ndarray, "R K 2"]
    words_R: Float[ndarray, " R"]

    def labels(self) -> list[list[str]]:
        """skip, keep, and zooms as ``x1.5``."""
        return [
            ["skip", "keep", *(f"x{zoom:.3g}" for zoom in row[2:])] for row in self.zoom_RK.tolist()
        ]


def menu_of(
    regions: Regions,
    score_R: Float[ndarray, " R"],
    pass1_zoom_R: Float[ndarray, " R"],
    config: AdaptConfig,
    recall: RecallCurve,
    pass1_recall: RecallCurve,
) -> Menu:
    """Options of each region, with what they are expected to miss and cost.

    Where there is text with probability p, w words of height h are missed by ``1 - R(h zoom)`` of
    them. Keeping a box of pass 1 where there is no text adds to the price, as nothing looks again;
    a second look is trusted to see that there is none.

    Args:
        regions: of one image or of several.
        score_R: best score of the boxes that pass 1 found there, 0 where it found none: there is
            nothing to keep then.
        pass1_zoom_R: pixels of pass 1's input for each pixel of the region's image.
        config: heights to choose from, limits.
        recall: of the detector of the second pass.
        pass1_recall: of the detector of pass 1.
    """
    p_R = np.maximum(regions.probability_R, score_R)
    w_R, scale_R, spread_R = regions.words_R, regions.scale_R, regions.spread_R
    kept_R = pass1_recall.expected(scale_R * pass1_zoom_R, spread_R)
    keep_R = w_R * (p_R * (1 - kept_R) + (1 - p_R) * config.false_alarm)
    side_R2 = regions.padded_R4[:, 2:] - regions.padded_R4[:, :2]
    largest = config.max_side // config.stride * config.stride
    most_R = np.minimum(config.max_zoom, largest / side_R2.max(1))
    zoom_RZ = np.minimum(np.array(sorted(config.heights)) / scale_R[:, None], most_R[:, None])
    size_RZ2 = np.maximum(1, np.rint(zoom_RZ[:, :, None] * side_R2[:, None]).astype(int))
    size_RZ2 = np.minimum(size_RZ2, largest)
    seen_RZ = recall.expected(zoom_RZ * scale_R[:, None], spread_R[:, None])
    zoom_loss_RZ = (w_R * p_R)[:, None] * (1 - seen_RZ)
    repeated_RZ = np.diff(zoom_RZ, axis=1, prepend=0) < 1e-9  # clipped at the same zoom
    useless_RZ = repeated_RZ | (zoom_RZ < _LARGER * pass1_zoom_R[:, None])
    zoom_loss_RZ[useless_RZ] = np.inf
    pixels_RZ = PACKING * (size_RZ2 + config.gutter).prod(2)
    nothing_R2 = np.zeros((len(w_R), 2))
    return Menu(
        np.concatenate(
            [(w_R * p_R)[:, None], np.where(score_R > 0, keep_R, np.inf)[:, None], zoom_loss_RZ], 1
        ),
        np.concatenate([nothing_R2, pixels_RZ], 1),
        np.concatenate([nothing_R2, zoom_RZ], 1),
        np.concatenate([np.zeros((len(w_R), 2, 2), int), size_RZ2], 1),
        w_R * p_R,
    )


def within(
    menu: Menu,
    limits: Mapping[str, Any],
    spent: Mapping[str, float],
    latency: LatencyModel | None = None,
) -> Allocation:
    """Fewest misses within limits.

    Args:
        menu: the options.
        limits: of "pixels", "latency" or both, for both passes.
        spent: what pass 1 has cost, and calls of the second will, by the same names.
        latency: of the second pass, where its time is limited.
    """
    cost = {"pixels": menu.pixels_RK}
    if latency is not None:
        cost["latency"] = latency.pixel * menu.pixels_RK
    problem = ChoiceProblem(
        menu.loss_RK, cost, fixed={name: spent[name] for name in cost}, options=menu.labels()
    )
    return solve(problem, limits, SOLVER, gap=GAP)


def cheapest(menu: Menu, tolerance: float, spent_pixels: float) -> Allocation:
    """Fewest pixels at which the expected misses exceed the fewest possible ones by no more than a
    share of the words.

    The losses of this allocation are pixels, those of pass 1 left out, and its cost the misses.

    Args:
        menu: the options.
        tolerance: that share, 0 to 1.
        spent_pixels: of pass 1.
    """
    fewest = float(menu.loss_RK.min(1).sum())
    pixels_RK = np.where(np.isfinite(menu.loss_RK), menu.pixels_RK, np.inf)
    finite_RK = np.where(np.isfinite(menu.loss_RK), menu.loss_RK, 0.0)
    problem = ChoiceProblem(
        pixels_RK,
        {"misses": finite_RK, "pixels": menu.pixels_RK},
        fixed={"pixels": spent_pixels},
        options=menu.labels(),
    )
    limit = fewest + tolerance * float(menu.words_R.sum())
    return solve(problem, {"misses": limit}, SOLVER, gap=GAP)


def boxes_by_region(
    centre_N2: Float[ndarray, "N 2"], box_R4: Float[ndarray, "R 4"]
) -> tuple[Int[ndarray, " N"], Bool[ndarray, " N"]]:
    """The smallest region that holds each box's centre, and whether there is one."""
    if not len(box_R4):
        return np.zeros(len(centre_N2), int), np.zeros(len(centre_N2), bool)
    x_N1, y_N1 = centre_N2[:, :1], centre_N2[:, 1:]
    x0_R, y0_R, x1_R, y1_R = box_R4.T
    inside_NR = (x_N1 >= x0_R) & (x_N1 <= x1_R) & (y_N1 >= y0_R) & (y_N1 <= y1_R)
    area_R = (x1_R - x0_R) * (y1_R - y0_R)
    return np.where(inside_NR, area_R, np.inf).argmin(1), inside_NR.sum(1) > 0
