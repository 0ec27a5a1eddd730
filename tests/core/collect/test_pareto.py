from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.collect import not_dominated

numbers = st.integers(-3, 3).map(float) | st.just(math.nan) | st.just(math.inf)
points = st.lists(st.tuples(numbers, numbers), max_size=12)


@given(points, st.booleans(), st.booleans())
def test_the_points_that_are_kept_are_those_that_none_beats(points, x_more, y_more):
    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        no_worse = [
            a >= b if more else a <= b for a, b, more in zip(one, other, more_, strict=True)
        ]
        return all(no_worse) and one != other

    more_ = (x_more, y_more)
    real = [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])]
    expected = [i for i, p in enumerate(points) if p in real and not any(beats(o, p) for o in real)]
    found = not_dominated(points, x_more=x_more, y_more=y_more)
    assert sorted(found) == expected
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


@pytest.mark.parametrize(
    ("x_more", "y_more", "expected"),
    [(False, False, [0, 1]), (False, True, [0, 2]), (True, False, [1, 3]), (True, True, [2, 3])],
)
def test_more_may_be_better(x_more, y_more, expected):
    corners = [(1.0, 3.0), (2.0, 1.0), (3.0, 5.0), (5.0, 2.0)]
    assert not_dominated(corners, x_more=x_more, y_more=y_more) == expected
