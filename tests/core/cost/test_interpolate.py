"""Interpolation on grids with holes, plain and as a correction of a model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.cost.interpolate import Estimate, Grid, Point

coefficient = st.floats(0.1, 10)
seconds = st.floats(0.1, 10)
XS, YS = (1.0, 2.0, 4.0), (10.0, 20.0, 40.0)


def ask(points: dict[Point, float], query: Point, *, extrapolate: bool = False) -> Estimate | None:
    times, hows = Grid(points).at([query], extrapolate=extrapolate)
    return None if np.isnan(times[0]) else Estimate(float(times[0]), hows[0])


@given(
    c=st.tuples(coefficient, coefficient, coefficient, coefficient),
    x=st.floats(1, 4),
    y=st.floats(10, 40),
)
def test_multilinear_functions_are_reproduced(c, x, y):
    def f(x, y):
        return c[0] + c[1] * x + c[2] * y + c[3] * x * y

    grid: dict[Point, float] = {(a, b): f(a, b) for a, b in itertools.product(XS, YS)}
    found = ask(grid, (x, y))
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
    # Column 2 ends at 1: between columns 1 and 3.
    assert ask(grid, (2.0, 3.0)) == (4.0, "interpolated")


def test_outside_is_refused_unless_asked_for():
    line: dict[Point, float] = {(1.0,): 2.0, (2.0,): 3.0, (4.0,): 6.0}
    assert ask(line, (5.0,)) is None
    assert ask(line, (5.0,), extrapolate=True) == (7.5, "extrapolated")
    assert ask(line, (0.5,), extrapolate=True) == (1.5, "extrapolated")
    assert ask(line, (3.0,), extrapolate=True) == (4.5, "interpolated")
    assert ask({(1.0,): 2.0}, (2.0,), extrapolate=True) is None


def test_beyond_a_short_column_the_column_goes_on():
    grid: dict[Point, float] = {(1.0, 1.0): 1.0, (1.0, 2.0): 2.0, (2.0, 1.0): 3.0, (2.0, 2.0): 4.0}
    assert ask(grid, (1.5, 3.0)) is None
    assert ask(grid, (1.5, 3.0), extrapolate=True) == (4.0, "extrapolated")
    assert ask(grid, (3.0, 3.0), extrapolate=True) == (7.0, "extrapolated")


def test_beyond_one_axis_the_others_are_interpolated_where_they_can_be():
    """As in a hole: column 2 goes on to 16.0, but columns 1 and 3 say 4.0 where it is missing."""
    plane = {(1.0, 1.0): 1.0, (1.0, 3.0): 3.0, (2.0, 1.0): 2.0, (2.0, 2.0): 9.0}
    plane |= {(3.0, 1.0): 3.0, (3.0, 3.0): 5.0}
    grid: dict[Point, float] = {(z, *at): z * t for z in (1.0, 2.0) for at, t in plane.items()}
    assert ask(grid, (3.0, 2.0, 3.0), extrapolate=True) == (12.0, "extrapolated")


@given(st.floats(0.01, 0.99))
def test_extrapolation_below_stays_between_zero_and_the_first_point(x):
    steep: dict[Point, float] = {(1.0,): 1.0, (2.0,): 5.0}
    noisy: dict[Point, float] = {(1.0,): 2.0, (2.0,): 1.9}
    for line in (steep, noisy):
        found = ask(line, (x,), extrapolate=True)
        assert found is not None and 0 <= found.seconds <= line[(1.0,)]


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(XS), st.sampled_from(YS)), st.tuples(seconds, seconds), min_size=1
    ),
    st.lists(st.tuples(st.floats(0.5, 5), st.floats(5, 50)), min_size=1, max_size=4),
    st.floats(0.1, 10),
)
def test_a_model_changes_times_but_not_what_is_answered(cells, queries, modelled):
    """Holes anywhere: times as measured at the points, within the measured range between them."""
    times = {point: both[0] for point, both in cells.items()}
    model = {point: both[1] for point, both in cells.items()}
    queries = [*queries, *times]
    plain, _ = Grid(times).at(queries)
    fitted, hows = Grid(times, model, logs=(1,)).at(queries, np.full(len(queries), modelled))
    assert (np.isnan(plain) == np.isnan(fitted)).all()
    answered = fitted[~np.isnan(fitted)]
    assert (answered >= min(times.values())).all() and (answered <= max(times.values())).all()
    assert fitted[-len(times) :].tolist() == list(times.values())
    assert hows[-len(times) :] == ["measured"] * len(times)


def test_a_right_model_is_followed_between_and_beyond():
    def f(x, y):
        return 3 + x * x + 100 / y

    times: dict[Point, float] = {(x, y): f(x, y) for x, y in itertools.product(XS, YS)}
    twice = {point: 2 * value for point, value in times.items()}
    queries: list[Point] = [(3.0, 15.0), (8.0, 80.0), (0.5, 20.0)]
    model = np.array([2 * f(*query) for query in queries])
    grid = Grid(times, twice, logs=(0,))
    found, hows = grid.at(queries, model, extrapolate=True)
    assert found == pytest.approx(model / 2)
    assert hows == ["interpolated", "extrapolated", "extrapolated"]
    assert np.isnan(grid.at(queries, model)[0]).tolist() == [False, True, True]


def test_the_correction_is_linear_in_the_logarithm_where_asked():
    times: dict[Point, float] = {(1.0,): 10.0, (15.0,): 80.0}
    model: dict[Point, float] = {(1.0,): 10.0, (15.0,): 40.0}
    query, modelled = [(3.0,)], np.array([18.0])
    assert Grid(times, model).at(query, modelled)[0] == pytest.approx(18 * (1 + 2 / 14))
    assert Grid(times, model, logs=(0,)).at(query, modelled)[0] == pytest.approx(18 * (1 + 1 / 3))


def test_a_model_cannot_leave_the_cell():
    grid = Grid({(1.0,): 1.0, (3.0,): 2.0}, {(1.0,): 1.0, (3.0,): 1.0})
    assert grid.at([(2.0,)], np.array([9.0]))[0] == 2.0
    assert grid.at([(2.0,)], np.array([0.1]))[0] == 1.0


def test_a_model_that_has_a_point_for_free_is_ignored():
    grid = Grid({(1.0,): 1.0, (3.0,): 2.0}, {(1.0,): 0.0, (3.0,): 1.0})
    assert grid.at([(2.0,)], np.array([9.0]))[0] == 1.5
