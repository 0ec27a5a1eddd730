from __future__ import annotations

import math

import numpy as np
import pytest

from adaptive.textscale.evaluate.prior import (
    PriorScore,
    regions_of_words,
    score_prior,
)
from adaptive.textscale.words import Words


def box(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


WORDS = Words(
    np.array([box(0, 0, 40, 10), box(50, 0, 90, 10), box(0, 50, 40, 70)], np.float32),
    np.array([True, True, False]),
    ("one", "two", "###"),
)


def test_words_may_share_a_region_and_take_the_one_that_holds_most():
    region_R42 = np.array([box(0, 0, 75, 10), box(0, 0, 90, 10), box(0, 50, 19, 70)], np.float32)
    assert regions_of_words(WORDS, region_R42).tolist() == [1, 1, -1]
    assert regions_of_words(WORDS, region_R42[[0, 2]]).tolist() == [0, 0, -1]
    assert regions_of_words(WORDS, region_R42[:0]).tolist() == [-1, -1, -1]


def test_recall_counts_care_words_and_the_error_is_a_ratio_either_way():
    region_R42 = np.array([box(0, 0, 45, 10), box(0, 40, 45, 80)], np.float32)
    image = (WORDS, region_R42, np.array([20, 20], np.float32))
    found = score_prior([image])
    assert (found.recall, found.words) == (0.5, 2)
    assert found.scale_error == pytest.approx(math.log(2))
    half = (WORDS, region_R42, np.array([5, 20], np.float32))
    assert score_prior([half]).scale_error == pytest.approx(math.log(2))


def test_nothing_seen_has_no_scale_error():
    none = (WORDS, np.zeros((0, 4, 2), np.float32), np.zeros(0, np.float32))
    assert score_prior([none]) == PriorScore(0.0, None, 2)
    assert score_prior([]) == PriorScore(0.0, None, 0)
