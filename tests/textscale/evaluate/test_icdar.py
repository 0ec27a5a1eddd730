"""The competition's rules: against their plain text, at their edges, and on real annotations."""

from __future__ import annotations

from fractions import Fraction

import icdar_rules
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adaptive.textscale.data.labelled import LabelledImages
from adaptive.textscale.evaluate.icdar import Matches, Score, match, score
from adaptive.textscale.words import Detections, Words


def words(*quads, care=None) -> Words:
    quad_N42 = np.array(quads, np.float32).reshape(-1, 4, 2)
    care_N = np.ones(len(quad_N42), bool) if care is None else np.array(care, bool)
    return Words(quad_N42, care_N, tuple("word" if c else "###" for c in care_N))


def detections(*quads) -> Detections:
    quad_D42 = np.array(quads, np.float32).reshape(-1, 4, 2)
    return Detections(quad_D42, np.ones(len(quad_D42), np.float32))


def box(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def counts(matches: Matches) -> tuple[int, int, int]:
    found = score([matches])
    return found.matches, found.care_words, found.care_detections


corner = st.tuples(st.integers(0, 9), st.integers(0, 9))
boxes = st.builds(
    lambda x, y, w, h: box(x, y, x + w, y + h), *[st.integers(0, 6)] * 2, *[st.integers(1, 5)] * 2
)
quads = st.one_of(boxes, st.lists(corner, min_size=4, max_size=4))


@given(st.lists(st.tuples(quads, st.booleans()), max_size=5), st.lists(quads, max_size=5))
def test_it_does_what_the_rules_say(annotated, found):
    gt = [[(Fraction(x), Fraction(y)) for x, y in quad] for quad, _ in annotated]
    det = [[(Fraction(x), Fraction(y)) for x, y in quad] for quad in found]
    care = [cares for _, cares in annotated]
    for one in filter(icdar_rules.is_simple, det):
        for other in filter(icdar_rules.is_simple, gt):
            # At a threshold the last bit of a slanted quad's area decides, in the script too.
            share = icdar_rules.shared(one, other) / icdar_rules.area(one)
            edge = Fraction(1, 2) in (icdar_rules.iou(one, other), share)
            assume(not edge or (is_box(one) and is_box(other)))
    pairs, care_words, care_detections = icdar_rules.counted(gt, care, det)
    matches = match(words(*[quad for quad, _ in annotated], care=care), detections(*found))
    assert [tuple(pair) for pair in matches.pair_M2.tolist()] == pairs
    assert counts(matches) == (len(pairs), care_words, care_detections)
    for (n, d), iou in zip(pairs, matches.iou_M, strict=True):
        assert iou == pytest.approx(float(icdar_rules.iou(gt[n], det[d])), abs=1e-9)


def is_box(quad) -> bool:
    return len({x for x, _ in quad}) == 2 and len({y for _, y in quad}) == 2


def test_an_iou_of_one_half_is_no_match():
    assert counts(match(words(box(0, 0, 10, 10)), detections(box(0, 0, 10, 5)))) == (0, 1, 1)
    assert counts(match(words(box(0, 0, 100, 10)), detections(box(0, 0, 51, 10)))) == (1, 1, 1)


def test_half_in_a_word_that_nobody_cares_about_still_counts():
    ignored = words(box(0, 0, 10, 10), care=[False])
    assert counts(match(ignored, detections(box(5, 0, 15, 10)))) == (0, 0, 1)
    assert counts(match(ignored, detections(box(4, 0, 14, 10)))) == (0, 0, 0)


def test_two_ignored_words_do_not_add_up():
    ignored = words(box(0, 0, 5, 10), box(5, 0, 10, 10), care=[False, False])
    assert counts(match(ignored, detections(box(0, 0, 10, 10)))) == (0, 0, 1)


def test_a_detection_that_is_ignored_cannot_match():
    both = words(box(0, 0, 10, 10), box(0, 0, 10, 10), care=[True, False])
    assert counts(match(both, detections(box(0, 0, 10, 10)))) == (0, 1, 0)


def test_the_first_that_fits_is_taken_and_not_the_best():
    found = detections(box(0, 0, 10, 6), box(0, 0, 10, 10))
    matches = match(words(box(0, 0, 10, 10)), found)
    assert matches.pair_M2.tolist() == [[0, 0]] and matches.iou_M == pytest.approx([0.6])


def test_what_has_no_area_or_crosses_itself_counts_on_neither_side():
    bow = [(0, 0), (10, 10), (10, 0), (0, 10)]
    line = [(0, 0), (5, 0), (10, 0), (5, 0)]
    lost = [(0, 0), (np.nan, 0), (10, 10), (0, 10)]
    broken = (bow, line, lost)
    assert counts(match(words(*broken), detections(*broken))) == (0, 0, 0)
    whole = match(words(bow, box(0, 0, 9, 9)), detections(line, box(0, 0, 9, 9)))
    assert whole.pair_M2.tolist() == [[1, 1]] and whole.found_N.tolist() == [False, True]


def test_images_are_added_up_before_shares_are_taken():
    one = match(words(box(0, 0, 10, 10)), detections(box(0, 0, 10, 10)))
    other = match(words(*[box(0, 20 * k, 9, 20 * k + 9) for k in range(3)]), Detections.none())
    assert score([one, other]) == Score(1.0, 0.25, 0.4, 4, 1, 1)


def test_without_words_or_detections_everything_is_nought():
    assert score([match(words(), Detections.none())]) == Score(0.0, 0.0, 0.0, 0, 0, 0)
    assert score([]) == Score(0.0, 0.0, 0.0, 0, 0, 0)


@pytest.mark.data
def test_real_annotations_find_themselves(data_dir):
    images = LabelledImages(data_dir / "scene_text" / "icdar15" / "val.tar")
    matches = [match(w, Detections(w.quad_N42, np.ones(len(w), np.float32))) for w in images.words]
    found = score(matches)
    assert (len(images), found.care_words) == (100, 463)
    # Two care words lie in words that nobody cares about, and vanish with their detections.
    assert found.matches == found.care_detections and found.care_words - found.matches <= 2
    assert found.precision == 1.0
