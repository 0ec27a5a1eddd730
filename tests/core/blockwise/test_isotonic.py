"""The repair of noisy ladders: monotone, nearest, and nothing where nothing is wrong."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.blockwise.isotonic import monotone, nondecreasing

NAN = float("nan")
VALUES = st.integers(-8, 8).map(lambda x: x / 4)


@st.composite
def tables(draw, rows: int = 3, columns: int = 3) -> np.ndarray:
    shape = draw(st.integers(1, rows)), draw(st.integers(1, columns))
    size = shape[0] * shape[1]
    return np.array(draw(st.lists(VALUES, min_size=size, max_size=size))).reshape(shape)


def nearest_by_trying(table_AF: np.ndarray, zero: tuple[int, int] | None) -> np.ndarray:
    """The projection as a quadratic program, by trying every set of equalities.

    At the optimum some neighbours are equal and the rest are free, so it is the pooled mean of
    some set of equal neighbours (0 for the pool that holds the zero): the nearest feasible one.
    """
    shape = table_AF.shape
    cells = list(itertools.product(*map(range, shape)))
    edges = [
        (u, v)
        for u, v in itertools.product(cells, cells)
        if v in ((u[0] + 1, u[1]), (u[0], u[1] + 1))
    ]
    best, best_distance = None, np.inf
    for equal in itertools.product([False, True], repeat=len(edges)):
        pool = {cell: {cell} for cell in cells}
        for (u, v), same in zip(edges, equal, strict=True):
            if same and pool[u] is not pool[v]:
                joined = pool[u] | pool[v]
                pool |= dict.fromkeys(joined, joined)
        found = np.empty(shape)
        for cell in cells:
            members = pool[cell]
            found[cell] = 0.0 if zero in members else np.mean([table_AF[m] for m in members])
        # With a zero, a pool may also be held at 0 by the bound alone.
        candidates = [found]
        if zero is not None:
            low = np.full(shape, -np.inf)
            high = np.full(shape, np.inf)
            low[zero[0] :, zero[1] :] = 0
            high[: zero[0] + 1, : zero[1] + 1] = 0
            candidates.append(np.clip(found, low, high))
        for x in candidates:
            if all(x[u] <= x[v] + 1e-12 for u, v in edges):
                distance = ((x - table_AF) ** 2).sum()
                if distance < best_distance:
                    best, best_distance = x, distance
    assert best is not None
    return best


def is_monotone(table_AF: np.ndarray) -> bool:
    return bool((np.diff(table_AF, axis=0) >= 0).all() and (np.diff(table_AF, axis=1) >= 0).all())


@given(st.lists(VALUES, min_size=1, max_size=6))
def test_a_ladder_is_the_nearest_one_that_does_not_fall(values):
    values_N = np.array(values)
    found = nondecreasing(values_N)
    assert (np.diff(found) >= 0).all()
    wanted = nearest_by_trying(values_N[None], None)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@given(tables(2, 3), st.booleans())
def test_a_table_is_the_nearest_one_that_falls_neither_way(table_AF, pinned):
    zero = (0, 0) if pinned else None
    if pinned:
        table_AF[0, 0] = 0.0
    found = monotone(table_AF, zero)
    assert is_monotone(found)
    assert zero is None or found[zero] == 0
    wanted = nearest_by_trying(table_AF, zero)
    np.testing.assert_allclose(found, wanted, atol=1e-7)


@given(tables(5, 6), st.data())
def test_repair_obeys_its_laws_on_larger_tables(table_AF, data):
    """Monotone, idempotent, nothing to do where all is well, and nearer than any other."""
    zero = (
        data.draw(st.integers(0, table_AF.shape[0] - 1)),
        data.draw(st.integers(0, table_AF.shape[1] - 1)),
    )
    table_AF[zero] = 0.0
    found = monotone(table_AF, zero)
    assert is_monotone(found) and found[zero] == 0
    np.testing.assert_array_equal(monotone(found, zero), found)
    # The variational inequality of a projection onto a convex set: for every member of the set,
    # <table - found, member - found> <= 0.
    size = table_AF.size
    other = np.array(data.draw(st.lists(VALUES, min_size=size, max_size=size))).reshape(
        table_AF.shape
    )
    other[zero] = 0.0
    member = monotone(other, zero)
    for toward in (member, 2 * found, 0 * found):
        assert ((table_AF - found) * (toward - found)).sum() <= 1e-6


@given(tables(4, 4))
def test_a_table_in_order_is_left_alone(table_AF):
    ordered = np.maximum.accumulate(np.maximum.accumulate(table_AF, axis=0), axis=1)
    np.testing.assert_array_equal(monotone(ordered), ordered)


@given(tables(4, 5))
def test_a_sum_of_two_ladders_stays_one(table_AF):
    """Scores of sub-blocks add up, and so do their repairs."""
    rows_A, columns_F = table_AF[:, 0], table_AF[0]
    found = monotone(rows_A[:, None] + columns_F[None])
    wanted = nondecreasing(rows_A)[:, None] + nondecreasing(columns_F)[None]
    np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_unavailable_options_bind_no_others():
    np.testing.assert_array_equal(
        nondecreasing(np.array([0.0, 3.0, NAN, 1.0])), [0.0, 2.0, NAN, 2.0]
    )
    table_AF = np.array([[0.0, NAN, 4.0], [1.0, NAN, 2.0]])
    np.testing.assert_allclose(monotone(table_AF, (0, 0)), [[0, NAN, 3], [1, NAN, 3]])
