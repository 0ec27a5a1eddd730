"""How good a prior is: does pass 1 see the words, and how well does it tell their scale?

A word is seen when at least half of its area lies in one region. Several words may share a region:
unlike a detection, a region need not tell words apart, it has to send pixels to them.

Shapes: N words, R regions, M words that were seen, 4 corners, 2 coordinates in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Float32, Int64
from numpy import ndarray

from adaptive.textscale.evaluate.icdar import areas, neighbours, polygons
from adaptive.textscale.words import Words, short_sides

SEEN_SHARE = 0.5
"""Share of a word's area in a region from which on pass 1 has seen the word."""


@dataclass(frozen=True)
class PriorScore:
    """Quality of a prior over images.

    Attributes:
        recall: share of care words that were seen, 0 to 1; 0 without words.
        scale_error: median of ``|ln(predicted scale / scale)|`` over the seen ones; None without.
        words: care words.
    """

    recall: float
    scale_error: float | None
    words: int


def regions_of_words(words: Words, quad_R42: Float32[ndarray, "R 4 2"]) -> Int64[ndarray, " N"]:
    """The region that holds most of each word; -1 where none holds half of it.

    Args:
        words: annotations; those without an area are not seen.
        quad_R42: what pass 1 takes for text, in pixels of the image.
    """
    shape_N, shape_R = polygons(words.quad_N42), polygons(quad_R42)
    word_K, region_K, _ = neighbours(shape_N, shape_R)
    shared_K = areas(shapely.intersection(shape_N[word_K], shape_R[region_K]))
    share_K = shared_K / areas(shape_N)[word_K]
    region_N = np.full(len(words), -1, np.int64)
    order_K = np.argsort(share_K, kind="stable")  # the largest share is written last
    order_K = order_K[share_K[order_K] >= SEEN_SHARE]
    region_N[word_K[order_K]] = region_K[order_K]
    return region_N


def score_prior(
    images: Iterable[tuple[Words, Float32[ndarray, "_ 4 2"], Float32[ndarray, " _"]]],
) -> PriorScore:
    """Pass-1 recall and scale error over images.

    Args:
        images: annotations, quads of regions and the scale in pixels predicted for each region,
            of each image, all in pixels of the image.
    """
    seen = words = 0
    errors: list[float] = []
    for annotated, quad_R42, scale_R in images:
        region_N = regions_of_words(annotated, quad_R42)
        valid_N = ~np.asarray(shapely.is_missing(polygons(annotated.quad_N42)))
        words += int((annotated.care_N & valid_N).sum())
        word_M = np.flatnonzero(annotated.care_N & (region_N >= 0))
        seen += len(word_M)
        errors += _log_ratios(annotated, word_M, scale_R[region_N[word_M]])
    return PriorScore(seen / words if words else 0.0, _median(errors), words)


def _log_ratios(words: Words, word_M: ndarray, scale_M: ndarray) -> list[float]:
    return np.abs(np.log(scale_M / short_sides(words.quad_N42[word_M]))).tolist()


def _median(errors: list[float]) -> float | None:
    return float(np.median(errors)) if errors else None
