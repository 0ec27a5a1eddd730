"""From the maps of pass 1 to regions: where there is text, how large it is, and how much of it.

Shapes: R regions, C components of the map, h x w cells; boxes are x0, y0, x1, y1.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from adaptive.textscale.nms import overlapping_pairs
from adaptive.textscale.words import CANONICAL, TextMaps, Words, short_sides

MERGE = 1.6  # ratio of scales up to which two regions are read at one zoom
SMALLEST = 4.0  # height in pixels of pass 1's input below which its scale means nothing
ENOUGH = 0.8  # coverage below which users are warned
ASPECT = 4.0  # width over height of a word and the space after it
# What labels shrink a word's core by, at each end, in parts of its height.
_SHRUNK = 0.35
# Least standard deviation of a region's log-scale: that of the median itself, from image to image.
_SPREAD = 0.15
_MOST = 2000  # components, the largest ones


@dataclass(frozen=True)
class Regions:
    """Text regions of an image, in its pixels.

    Attributes:
        box_R4: tight boxes.
        padded_R4: the boxes with one text height around them, whole pixels within the image.
        scale_R: height of the text, the short side of a word's rectangle.
        spread_R: standard deviation of the log of that height.
        probability_R: that there is text.
        words_R: number of words that are expected there, if there is text.
        sized_R: False where text is too small in pass 1's input to tell its scale.
        coverage: share of the expected words that lie in sized regions; 1 without text.
        warnings: what the user should know.
    """

    box_R4: Float[ndarray, "R 4"]
    padded_R4: Int[ndarray, "R 4"]
    scale_R: Float[ndarray, " R"]
    spread_R: Float[ndarray, " R"]
    probability_R: Float[ndarray, " R"]
    words_R: Float[ndarray, " R"]
    sized_R: Bool[ndarray, " R"]
    coverage: float
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scale_R)


def find_regions(
    maps: TextMaps,
    width: int,
    height: int,
    *,
    ratio: tuple[float, float],
    threshold: float = 0.2,
) -> Regions:
    """Components of the probability map, sized, padded and merged.

    Args:
        maps: what pass 1 says of the small copy of the image.
        width, height: of the image.
        ratio: pixels of the copy for each pixel of the image, along x and along y.
        threshold: cells above it are text. A low one is right here: a region that turns out empty
            costs some pixels, one that is overlooked costs its words.
    """
    return _finished(_components(maps, ratio, threshold), width, height, ratio)


def known_regions(words: Words, width: int, height: int) -> Regions:
    """Regions of the words that count in an annotated image: what a perfect prior would say.

    Args:
        words: of the image.
        width, height: of the image.
    """
    quad_C42 = words.quad_N42[words.care_N]
    quad_C42 = np.clip(quad_C42, 0, np.array([width, height], np.float32))
    C = len(quad_C42)
    parts = _Parts(
        np.concatenate([quad_C42.min(1), quad_C42.max(1)], 1).astype(float),
        np.log(np.maximum(short_sides(quad_C42), 1.0)).astype(float),
        np.full(C, _SPREAD**2),
        np.ones(C),
        np.ones(C),
    )
    return _finished(parts, width, height, (1.0, 1.0))


def _finished(parts: _Parts, width: int, height: int, ratio: tuple[float, float]) -> Regions:
    """Merged and padded regions, with what the user should know."""
    if not len(parts.log_C):
        none = np.zeros(0)
        boxes = np.zeros((0, 4))
        return Regions(boxes, boxes.astype(int), none, none, none, none, none.astype(bool), 1.0)
    parts = _merged(parts, width, height)
    scale_R = np.exp(parts.log_C)
    seen_R = scale_R * _mean_ratio(ratio)
    sized_R = seen_R >= SMALLEST * (1 - 1e-6)
    expected_R = parts.probability_C * parts.words_C
    coverage = float(expected_R[sized_R].sum() / expected_R.sum())
    return Regions(
        parts.box_C4,
        _padded(parts, width, height).astype(int),
        scale_R,
        np.sqrt(parts.variance_C),
        parts.probability_C,
        parts.words_C,
        sized_R,
        coverage,
        () if coverage >= ENOUGH else (_warning(coverage, seen_R, sized_R, width, height, ratio),),
    )


@dataclass(frozen=True)
class _Parts:
    """Regions in the making; variances and means are of the log-height, ``log_C``."""

    box_C4: Float[ndarray, "C 4"]
    log_C: Float[ndarray, " C"]
    variance_C: Float[ndarray, " C"]
    probability_C: Float[ndarray, " C"]
    words_C: Float[ndarray, " C"]


def _components(maps: TextMaps, ratio: tuple[float, float], threshold: float) -> _Parts:
    """Each connected component of the map by itself, in pixels of the image."""
    text_hw = (maps.probability_hw > threshold).astype(np.uint8)
    contours, levels = cv2.findContours(text_hw, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer = [
        c for c, level in zip(contours, levels[0] if contours else (), strict=True) if level[3] < 0
    ]
    outer = sorted(outer, key=len, reverse=True)[:_MOST]
    C = len(outer)
    box_C4, log_C, spread_C = np.zeros((C, 4)), np.zeros(C), np.zeros(C)
    probability_C, long_C = np.zeros(C), np.zeros(C)
    for c, contour in enumerate(outer):
        x, y, w, h = cv2.boundingRect(contour)
        inside_hw = np.zeros((h, w), np.uint8)
        cv2.drawContours(inside_hw, [contour], -1, 1, cv2.FILLED, offset=(-x, -y))
        inside_hw = inside_hw.view(bool)
        z_n = np.sort(maps.log_scale_hw[y : y + h, x : x + w][inside_hw])
        n = len(z_n)
        probability_C[c] = maps.probability_hw[y : y + h, x : x + w][inside_hw].mean()
        log_C[c] = z_n[n // 2]
        spread_C[c] = (z_n[3 * n // 4] - z_n[n // 4]) / 1.349  # of a normal law, by its quartiles
        box_C4[c] = x, y, x + w, y + h
        long_C[c] = max(cv2.minAreaRect(contour)[1]) + 1
    cell_2 = maps.stride / np.array(ratio)  # pixels of the image
    log_C += np.log(CANONICAL / _mean_ratio(ratio))
    scale_C = np.exp(log_C)
    box_C4 = box_C4 * np.tile(cell_2, 2) + _SHRUNK * scale_C[:, None] * (-1, -1, 1, 1)
    length_C = long_C * cell_2.mean() + 2 * _SHRUNK * scale_C
    words_C = np.maximum(1.0, length_C / (ASPECT * scale_C))
    return _Parts(box_C4, log_C, spread_C**2 + _SPREAD**2, probability_C, words_C)


def _merged(parts: _Parts, width: int, height: int) -> _Parts:
    """Joins regions whose padded boxes overlap, where one zoom serves both and their common box
    costs no more pixels than the two; round after round, as joined ones may meet others."""
    while True:
        padded_C4 = _padded(parts, width, height)
        first_P, second_P = overlapping_pairs(padded_C4)
        area_C = (padded_C4[:, 2:] - padded_C4[:, :2]).prod(1)
        common_P4 = np.concatenate(
            [
                np.minimum(padded_C4[first_P, :2], padded_C4[second_P, :2]),
                np.maximum(padded_C4[first_P, 2:], padded_C4[second_P, 2:]),
            ],
            1,
        )
        waste_P = (common_P4[:, 2:] - common_P4[:, :2]).prod(1) / (
            area_C[first_P] + area_C[second_P]
        )
        apart_P = np.abs(parts.log_C[first_P] - parts.log_C[second_P])
        good_P = np.flatnonzero((apart_P <= np.log(MERGE)) & (waste_P <= 1))
        taken_C = np.zeros(len(parts.log_C), bool)
        pairs = []
        for p in good_P[np.argsort(waste_P[good_P], kind="stable")]:
            i, j = first_P[p], second_P[p]
            if not (taken_C[i] or taken_C[j]):
                taken_C[[i, j]] = True
                pairs.append((i, j))
        if not pairs:
            return parts
        parts = _join(parts, *np.array(pairs).T)


def _join(parts: _Parts, first_P: ndarray, second_P: ndarray) -> _Parts:
    """The parts with each of ``second_P`` joined into its partner."""
    values = {name: value.copy() for name, value in vars(parts).items()}
    weight_P = parts.words_C[first_P] / (parts.words_C[first_P] + parts.words_C[second_P])

    def mean(value_C: ndarray) -> ndarray:
        return weight_P * value_C[first_P] + (1 - weight_P) * value_C[second_P]

    square_C = parts.variance_C + parts.log_C**2
    values["log_C"][first_P] = mean(parts.log_C)
    values["variance_C"][first_P] = mean(square_C) - mean(parts.log_C) ** 2
    values["probability_C"][first_P] = mean(parts.probability_C)
    values["words_C"][first_P] += parts.words_C[second_P]
    a_P4, b_P4 = parts.box_C4[first_P], parts.box_C4[second_P]
    values["box_C4"][first_P, :2] = np.minimum(a_P4, b_P4)[:, :2]
    values["box_C4"][first_P, 2:] = np.maximum(a_P4, b_P4)[:, 2:]
    return _Parts(**{name: np.delete(value, second_P, 0) for name, value in values.items()})


def _padded(parts: _Parts, width: int, height: int) -> ndarray:
    """Boxes with one text height around them, on whole pixels within the image, [C, 4]."""
    wide_C4 = parts.box_C4 + np.exp(parts.log_C)[:, None] * (-1, -1, 1, 1)
    low_C2 = np.clip(np.floor(wide_C4[:, :2]), 0, (width - 1, height - 1))
    high_C2 = np.clip(np.ceil(wide_C4[:, 2:]), low_C2 + 1, (width, height))
    return np.concatenate([low_C2, high_C2], 1)


def _mean_ratio(ratio: tuple[float, float]) -> float:
    return float(np.sqrt(ratio[0] * ratio[1]))


def _warning(
    coverage: float,
    seen_R: ndarray,
    sized_R: ndarray,
    width: int,
    height: int,
    ratio: tuple[float, float],
) -> str:
    """How much text is too small for pass 1, and the setting that would mend it."""
    typical = float(np.median(seen_R[~sized_R]))
    copy, longest = max(width, height) * _mean_ratio(ratio), max(width, height)
    side = min(copy * 1.5 * SMALLEST / typical, longest)
    if copy < 0.99 * longest:
        mend = f"raise adapt.pass1_side from {copy:.0f} to about {32 * np.ceil(side / 32):.0f}"
    else:  # pass 1 saw all the pixels that there are
        mend = "give the image at a higher resolution, if there is text"
    return (
        f"{1 - coverage:.0%} of the text that pass 1 sees is too small in it to be sized (about "
        f"{typical:.1f} px, {SMALLEST:g} are needed): {mend}"
    )
