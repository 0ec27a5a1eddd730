"""Tightness-aware IoU (Liu et al., CVPR 2019): a match counts less when it is cut or merged.

With G a word and D its detection, both matched by ICDAR 2015's rules:

    recall side     IoU(G, D) * (1 - A(G \\ D) / A(G))              a cut word loses
    precision side  IoU(G, D) * (1 - A((O ∩ D) \\ G) / A(D))        a merged one loses

where O is the union of all other words that count. Their sums over matches, divided by the words
and by the detections that count, take the place of recall and precision.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely

from adaptive.textscale.evaluate.icdar import Matches, areas, hmean, polygons
from adaptive.textscale.words import Detections, Words


@dataclass(frozen=True)
class TightScore:
    """TIoU of a set of images, 0 to 1; never above the plain precision, recall and hmean."""

    precision: float
    recall: float
    hmean: float


def tiou(images: Iterable[tuple[Words, Detections, Matches]]) -> TightScore:
    """Tightness-aware precision, recall and their harmonic mean.

    Args:
        images: annotations, detections and their matches, of each image.
    """
    tight = whole = 0.0
    words = detections = 0
    for annotated, found, matches in images:
        whole_M, tight_M = _of_matches(annotated, found, matches)
        whole += whole_M.sum()
        tight += tight_M.sum()
        words += int(matches.care_N.sum())
        detections += int(matches.care_D.sum())
    precision = float(tight / detections) if detections else 0.0
    recall = float(whole / words) if words else 0.0
    return TightScore(precision, recall, hmean(precision, recall))


def _of_matches(words: Words, found: Detections, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Recall's and precision's part of each match, [M] each."""
    shape_N = polygons(words.quad_N42)
    shape_N[~matches.care_N] = None
    word_M, detection_M = matches.pair_M2.T
    own_M, box_M = shape_N[word_M], polygons(found.quad_N42)[detection_M]
    area_M, iou_M = areas(own_M), matches.iou_M
    shared_M = iou_M / (1 + iou_M) * (area_M + areas(box_M))
    whole_M = iou_M * np.minimum(shared_M / area_M, 1)

    foreign_M = np.zeros(len(word_M))
    near_2K = shapely.STRtree(shape_N).query(box_M)
    for m in range(len(word_M)):
        others = [n for n in near_2K[1, near_2K[0] == m] if n != word_M[m]]
        if others:
            other = shapely.union_all(shape_N[others])
            foreign_M[m] = box_M[m].intersection(other).difference(own_M[m]).area
    return whole_M, iou_M * (1 - foreign_M / areas(box_M))
