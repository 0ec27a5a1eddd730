"""Detections against annotations by the rules of ICDAR 2015, Challenge 4 (incidental scene text).

The rules, as the competition's own script applies them (Karatzas et al., ICDAR 2015, section V):

1. Quads that are not simple polygons with an area count on neither side.
2. A detection counts for nothing ("don't care") when more than half of its area lies in a single
   don't-care word.
3. Words in the order of their file, each with detections in the order of theirs: the first free,
   caring detection whose IoU is above 0.5 is the word's. Scores play no part.
4. Counts are added up over all images before precision and recall are taken.

Areas are those of polygons, convex or not, in double precision.

Shapes: N words, D detections, K pairs of a word and a detection that may overlap, M matches,
4 corners, 2 coordinates in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from adaptive.textscale.words import Detections, Words

IOU = 0.5
"""A match has a higher intersection over union than this."""
DONT_CARE_SHARE = 0.5
"""A detection with more than this share of its area in a don't-care word counts for nothing."""


@dataclass(frozen=True)
class Matches:
    """Which words of an image were found.

    Attributes:
        pair_M2: number of a word and of its detection, in the order of the words.
        iou_M: intersection over union of each pair.
        care_N: words that count in recall.
        care_D: detections that count in precision.
    """

    pair_M2: Int64[ndarray, "M 2"]
    iou_M: Float64[ndarray, " M"]
    care_N: Bool[ndarray, " N"]
    care_D: Bool[ndarray, " D"]

    @property
    def found_N(self) -> Bool[ndarray, " N"]:
        """Words that have a detection."""
        found_N = np.zeros(len(self.care_N), bool)
        found_N[self.pair_M2[:, 0]] = True
        return found_N


@dataclass(frozen=True)
class Score:
    """The competition's numbers for a set of images, 0 to 1.

    Attributes:
        precision: matches / care detections; 0 where there are none.
        recall: matches / care words; 0 where there are none.
        hmean: harmonic mean of the two, also called F.
        care_words: words that count.
        care_detections: detections that count.
        matches: words found.
    """

    precision: float
    recall: float
    hmean: float
    care_words: int
    care_detections: int
    matches: int


def match(words: Words, found: Detections) -> Matches:
    """Pairs the words of one image with what was detected in it.

    Args:
        words: annotations, in the order of their file.
        found: detections, in the order of theirs.
    """
    shape_N, shape_D = polygons(words.quad_N42), polygons(found.quad_N42)
    care_N = words.care_N & ~shapely.is_missing(shape_N)
    care_D = ~np.asarray(shapely.is_missing(shape_D))
    area_N, area_D = areas(shape_N), areas(shape_D)
    word_K, detection_K, box_K = neighbours(shape_N, shape_D)
    # Polygons share no more than their boxes do: most neighbours need no closer look.
    both_K = area_N[word_K] + area_D[detection_K]
    needed_K = np.where(
        care_N[word_K], both_K * IOU / (1 + IOU), area_D[detection_K] * DONT_CARE_SHARE
    )
    close_K = box_K >= needed_K * (1 - 1e-9)
    word_K, detection_K, both_K = word_K[close_K], detection_K[close_K], both_K[close_K]
    shared_K = areas(shapely.intersection(shape_D[detection_K], shape_N[word_K]))

    swallowed_K = shared_K / area_D[detection_K] > DONT_CARE_SHARE
    care_D[detection_K[swallowed_K & ~words.care_N[word_K]]] = False

    iou_K = shared_K / (both_K - shared_K)
    may_K = (iou_K > IOU) & care_N[word_K] & care_D[detection_K]
    pairs: list[tuple[int, int]] = []
    ious: list[float] = []
    taken_N, taken_D = set(), set()
    for n, d, iou in zip(
        word_K[may_K].tolist(), detection_K[may_K].tolist(), iou_K[may_K].tolist(), strict=True
    ):
        if n not in taken_N and d not in taken_D:
            taken_N.add(n)
            taken_D.add(d)
            pairs.append((n, d))
            ious.append(iou)
    return Matches(np.array(pairs, np.int64).reshape(-1, 2), np.array(ious), care_N, care_D)


def score(matches: Iterable[Matches]) -> Score:
    """Precision, recall and their harmonic mean over images.

    Args:
        matches: of each image, also of those where nothing was detected.
    """
    right = words = detections = 0
    for image in matches:
        right += len(image.pair_M2)
        words += int(image.care_N.sum())
        detections += int(image.care_D.sum())
    precision = right / detections if detections else 0.0
    recall = right / words if words else 0.0
    return Score(precision, recall, hmean(precision, recall), words, detections, right)


def hmean(precision: float, recall: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def polygons(quad_N42: Float32[ndarray, "N 4 2"]) -> ndarray:
    """Quads as shapely's polygons, [N]; None for one that is not simple or has no area."""
    shape_N = np.full(len(quad_N42), None, object)
    finite_N = np.isfinite(quad_N42).all((1, 2))
    shape_N[finite_N] = shapely.polygons(quad_N42[finite_N].astype(np.float64))
    shape_N[~shapely.is_valid(shape_N)] = None
    return shape_N


def areas(shape_N: ndarray) -> Float64[ndarray, " N"]:
    """Areas of polygons in square pixels; NaN for None."""
    return np.asarray(shapely.area(shape_N))


def neighbours(
    shape_N: ndarray, shape_D: ndarray
) -> tuple[Int64[ndarray, " K"], Int64[ndarray, " K"], Float64[ndarray, " K"]]:
    """Pairs whose bounding boxes meet, and the area that the boxes share.

    Args:
        shape_N: polygons of words, None for none.
        shape_D: polygons of detections, None for none.

    Returns:
        Numbers of the words in ascending order, of the detections (ascending for each word), and
        areas in square pixels.
    """
    word_K, detection_K = shapely.STRtree(shape_D).query(shape_N).astype(np.int64)
    order_K = np.lexsort((detection_K, word_K))
    word_K, detection_K = word_K[order_K], detection_K[order_K]
    one_K4, other_K4 = shapely.bounds(shape_N)[word_K], shapely.bounds(shape_D)[detection_K]
    side_K2 = np.minimum(one_K4[:, 2:], other_K4[:, 2:]) - np.maximum(
        one_K4[:, :2], other_K4[:, :2]
    )
    return word_K, detection_K, side_K2.prod(1)
