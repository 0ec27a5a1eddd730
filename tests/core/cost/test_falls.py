"""Where more work takes less time."""

from __future__ import annotations

import pytest

from adaptive.core.cost import FFN, MeasuredTable, Origin, Row, RowKey
from adaptive.core.cost.falls import falls


def table_of(seconds: dict[tuple[int, int], float], spread: float = 0.0) -> MeasuredTable:
    """Times of FFNs by (width, batch)."""
    table = MeasuredTable(Origin("test", "2.0", 0), mode="graph")
    for (width, batch), time in seconds.items():
        key = RowKey(FFN(64, width).key(), "prefill", batch, 1, "bf16", "graph")
        table.add(Row(key, time, spread, 7))
    return table


def test_time_that_grows_never_falls():
    assert falls(table_of({(w, b): w * b * 1e-6 for w in (16, 32) for b in (1, 2, 4)})) == []


@pytest.mark.parametrize(
    "seconds, axis, to",
    [
        ({(16, 1): 1.0, (16, 2): 0.8, (16, 4): 1.5}, "batch", 2),
        ({(16, 1): 1.0, (32, 1): 0.8, (64, 1): 1.5}, "intermediate", 32),
    ],
)
def test_a_fall_says_where_it_is(seconds, axis, to):
    (fall,) = falls(table_of(seconds))
    assert (fall.axis, fall.to) == (axis, to)
    assert fall.part == pytest.approx(0.2)
    assert fall.key.block == FFN(64, 16).key() and fall.key.batch == 1


@pytest.mark.parametrize("spread, count", [(0.0, 1), (0.1, 0)])
def test_what_spreads_as_much_as_it_falls_is_none(spread, count):
    assert len(falls(table_of({(16, 1): 1.0, (16, 2): 0.85}, spread))) == count
