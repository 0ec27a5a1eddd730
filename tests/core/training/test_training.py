"""Rates and records of trainings; checkpoints are tested where trainings resume."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.training import record_line, warmup_cosine


@given(steps=st.integers(1, 60), warmup=st.floats(0, 20))
def test_rates_rise_to_the_peak_and_fall_to_the_end(steps, warmup):
    rates = [warmup_cosine(step, steps, warmup, 1.0, 0.1) for step in range(steps + 1)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and min(rates) > 0
    assert rates[top:] == sorted(rates[top:], reverse=True) and max(rates) <= 1.0
    if warmup < steps:
        assert rates[-1] == pytest.approx(0.1)


def test_half_way_is_the_mean():
    assert warmup_cosine(50, 100, 0, 1.0, 0.2) == pytest.approx(0.6)


def test_a_record_reads_as_a_line():
    record = {
        "step": 7,
        "loss": 0.12345,
        "images_per_second": 1234.5,
        "eta": 65.0,
        "weights": "ema",
    }
    line = "step 7, 1,234 images/s, 1 min 05 s left, loss 0.1235, weights ema"
    assert record_line(record) == line
    assert record_line({"step": 1, "f": 0.5}) == "step 1, f 0.5"
