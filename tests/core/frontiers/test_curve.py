"""What a part keeps at half of its reference's cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.frontiers.curve import HALF, Point, curve_of, kept_of, share_of
from adaptive.core.run import Axis

LESS, MORE = Axis("cost"), Axis("quality", more=True)
RATE, LOSS = Axis("rate", more=True), Axis("loss")


def curve(points, reference, cost=LESS, quality=MORE):
    named = [(Point(str(i), x, y), reference) for i, (x, y) in enumerate(points)]
    return curve_of(named, cost, quality)


def test_half_is_interpolated_between_its_neighbours_on_the_frontier():
    # The run at 6 is beaten by the one at 4 and does not count.
    found = curve([(2, 40), (4, 60), (6, 55), (8, 70)], (10, 80))
    assert found.half.quality == pytest.approx(60 + 10 / 4)
    assert found.half.kept == pytest.approx(found.half.quality / 80)
    assert found.half.how == "interpolated between 40.0% and 80.0%"
    assert [point.cost for point in found.best] == [2, 4, 8]
    assert [point.kept for point in found.points] == pytest.approx([0.5, 0.75, 55 / 80, 7 / 8])


@pytest.mark.parametrize(
    ("points", "reference", "cost", "quality", "half", "how"),
    [
        ([(2, 40), (5.05, 62)], (10, 80), LESS, MORE, 62, "measured at 50.5%"),
        # A rate: twice as many a second take half of the time.
        ([(400, 40), (200, 60)], (100, 80), RATE, MORE, 60, "measured at 50.0%"),
        # The reference is a point too.
        ([(4, 60)], (10, 90), LESS, MORE, 65, "interpolated between 40.0% and 100.0%"),
        ([(4, 3.0)], (10, 2.0), LESS, LOSS, 3 - 1 / 6, "interpolated between 40.0% and 100.0%"),
        (
            [(4, 90)],
            (10, 80),
            LESS,
            MORE,
            90,
            "measured at 40.0%, and what costs more is no better",
        ),
        ([(6, 70)], (10, 80), LESS, MORE, None, "not reached: the cheapest run costs 60.0%"),
        # No run is cheaper than the reference, which is no run itself.
        (
            [(15, 85), (12, 70)],
            (10, 80),
            LESS,
            MORE,
            None,
            "not reached: the cheapest run costs 120.0%",
        ),
        ([(0, 70)], (100, 80), RATE, MORE, None, "not reached: no run's cost is a share"),
        ([], None, LESS, MORE, None, "no run is done"),
        ([(6, 70)], None, LESS, MORE, None, "there is no reference"),
    ],
)
def test_answers(points, reference, cost, quality, half, how):
    found = curve(points, reference, cost, quality).half
    assert found.quality == (None if half is None else pytest.approx(half))
    assert found.how.startswith(how)
    assert (found.kept is None) == (half is None) == (found.share is None)


def test_each_run_is_held_against_the_reference_that_it_measured():
    """A machine that is twice as slow for one run is so for both of its times."""
    points = [(Point("a", 6.0, 50), (10.0, 80.0)), (Point("b", 8.0, 60), (20.0, 80.0))]
    found = curve_of(points, LESS, MORE)
    assert [(point.name, point.share) for point in found.points] == [("b", 0.4), ("a", 0.6)]
    assert [point.name for point in found.best] == ["b"]
    assert found.reference is not None and found.reference.cost == 15


@pytest.mark.parametrize(("value", "reference"), [(0.0, 4.0), (-1.0, 4.0), (3.0, 0.0)])
def test_what_has_no_ratio_has_none(value, reference):
    shares = share_of(value, reference, False), kept_of(value, reference, False)
    assert None in shares and all(share is None or share >= 0 for share in shares)


numbers = st.floats(0.01, 100)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), numbers, numbers)
def test_the_answer_lies_on_the_frontier(points, cost, quality):
    found = curve(points, (cost, quality))
    half = found.half
    if half.quality is None:
        assert all(point.share > HALF for point in found.points)
        return
    affordable = [p.quality for p in found.points if p.share <= HALF]
    assert half.quality >= max(affordable, default=0) * (1 - 1e-9)
    assert half.quality <= max(quality, *(point.quality for point in found.points)) * (1 + 1e-9)
