from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.textscale.evaluate.icdar import match, score
from adaptive.textscale.evaluate.tiou import TightScore, tiou
from adaptive.textscale.words import Detections, Words


def box(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def image(annotated, found, care=None):
    care_N = np.ones(len(annotated), bool) if care is None else np.array(care)
    words = Words(
        np.array(annotated, np.float32).reshape(-1, 4, 2), care_N, ("word",) * len(annotated)
    )
    detections = Detections(
        np.array(found, np.float32).reshape(-1, 4, 2), np.ones(len(found), np.float32)
    )
    return words, detections, match(words, detections)


def test_a_tight_match_loses_nothing():
    assert tiou([image([box(0, 0, 10, 5)], [box(0, 0, 10, 5)])]) == TightScore(1.0, 1.0, 1.0)


def test_a_cut_word_costs_recall_twice():
    """Section 3.2 of the paper: IoU 0.8, of which the cut takes another fifth."""
    found = tiou([image([box(0, 0, 10, 5)], [box(0, 0, 8, 5)])])
    assert (found.recall, found.precision) == pytest.approx((0.64, 0.8))
    assert found.hmean == pytest.approx(2 * 0.64 * 0.8 / 1.44)


def test_text_of_another_word_costs_precision():
    """A box over 10 of one word and 4 of the next: IoU 10/14, of which 4/14 is the other's."""
    annotated = [box(0, 0, 10, 5), box(10, 0, 20, 5)]
    found = tiou([image(annotated, [box(0, 0, 14, 5)])])
    assert found.precision == pytest.approx(10 / 14 * 10 / 14)
    assert found.recall == pytest.approx(10 / 14 / 2)
    ignored = tiou([image(annotated, [box(0, 0, 14, 5)], care=[True, False])])
    assert ignored.precision == pytest.approx(10 / 14)


side = st.integers(0, 12)
some = st.lists(
    st.builds(lambda x, y, w, h: box(x, y, x + w + 1, y + h + 1), side, side, side, side),
    max_size=5,
)


@given(st.lists(st.tuples(some, some), max_size=3))
def test_it_is_never_above_the_plain_score(images):
    made = [image(*pair) for pair in images]
    plain, tight = score([one[2] for one in made]), tiou(made)
    assert 0 <= tight.precision <= plain.precision + 1e-12
    assert 0 <= tight.recall <= plain.recall + 1e-12
    assert 0 <= tight.hmean <= plain.hmean + 1e-12
