"""Interpolation on grids with holes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.cost.interpolate import Point, interpolate

coefficient = st.floats(0.1, 10)


@given(
    c=st.tuples(coefficient, coefficient, coefficient, coefficient),
    x=st.floats(1, 4),
    y=st.floats(10, 40),
)
def test_multilinear_functions_are_reproduced(c, x, y):
    def f(x, y):
        return c[0] + c[1] * x + c[2] * y + c[3] * x * y

    grid: dict[Point, float] = {
        (a, b): f(a, b) for a, b in itertools.product((1.0, 2.0, 4.0), (10.0, 20.0, 40.0))
    }
    found = interpolate(grid, (x, y))
    assert found is not None
    assert found.seconds == pytest.approx(f(x, y))
    assert found.how == ("measured" if (x, y) in grid else "interpolated")


def test_a_hole_widens_the_bracket():
    grid: dict[Point, float] = {
        (1.0, 1.0): 1.0,
        (1.0, 3.0): 3.0,
        (2.0, 1.0): 2.0,
        (3.0, 1.0): 3.0,
        (3.0, 3.0): 5.0,
    }
    found = interpolate(grid, (2.0, 3.0))  # column 2 ends at 1: between columns 1 and 3
    assert found == (4.0, "interpolated")


def test_outside_is_refused_unless_asked_for():
    line: dict[Point, float] = {(1.0,): 2.0, (2.0,): 3.0, (4.0,): 6.0}
    assert interpolate(line, (5.0,)) is None
    assert interpolate(line, (5.0,), extrapolate=True) == (7.5, "extrapolated")
    assert interpolate(line, (0.5,), extrapolate=True) == (1.5, "extrapolated")
    assert interpolate(line, (3.0,), extrapolate=True) == (4.5, "interpolated")
    assert interpolate({(1.0,): 2.0}, (2.0,), extrapolate=True) is None
    assert interpolate({}, (2.0,), extrapolate=True) is None


@given(st.floats(0.01, 0.99))
def test_extrapolation_below_stays_between_zero_and_the_first_point(x):
    steep: dict[Point, float] = {(1.0,): 1.0, (2.0,): 5.0}
    noisy: dict[Point, float] = {(1.0,): 2.0, (2.0,): 1.9}
    for line in (steep, noisy):
        found = interpolate(line, (x,), extrapolate=True)
        assert found is not None and 0 <= found.seconds <= line[(1.0,)]
