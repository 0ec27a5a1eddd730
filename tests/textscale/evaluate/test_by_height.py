from __future__ import annotations

import numpy as np

from adaptive.textscale.evaluate.by_height import BANDS, HeightRecall, recall_by_height
from adaptive.textscale.evaluate.icdar import match
from adaptive.textscale.words import Detections, Words

HEIGHTS = (8, 15, 16, 23, 24, 39, 40, 90)


def test_each_word_is_in_one_band_and_found_or_not():
    quads = [[(0, 200 * k), (300, 200 * k), (300, 200 * k + h), (0, 200 * k + h)]
             for k, h in enumerate(HEIGHTS)]  # fmt: skip
    quad_N42 = np.array(quads, np.float32)
    care_N = np.array([h != 23 for h in HEIGHTS])
    words = Words(quad_N42, care_N, ("word",) * len(HEIGHTS))
    found = Detections(quad_N42[[0, 2, 7]], np.ones(3, np.float32))
    bands = recall_by_height([(words, match(words, found))] * 2)
    assert bands == {
        "h_lt16": HeightRecall(4, 2),
        "h16_24": HeightRecall(2, 2),
        "h24_40": HeightRecall(4, 0),
        "h_gt40": HeightRecall(4, 2),
    }
    assert [band.recall for band in bands.values()] == [0.5, 1.0, 0.0, 0.5]


def test_a_turned_word_is_as_high_as_it_was():
    turned = Words(
        np.array([[(0, 0), (10, 0), (10, 99), (0, 99)]], np.float32), np.array([True]), ("word",)
    )
    bands = recall_by_height([(turned, match(turned, Detections.none()))])
    assert bands["h_lt16"] == HeightRecall(1, 0)
    assert all(bands[name].recall is None for name in BANDS if name != "h_lt16")
