"""Seconds by pixels."""

from __future__ import annotations

import pytest

from adaptive.textscale.latency import LatencyModel
from adaptive.textscale.words import Detections


@pytest.mark.parametrize(("late", "repeats"), [((), 1), ((5, 10), 3), ((5, 6, 7, 8, 9), 5)])
def test_a_line_is_found_again_whatever_happens_in_single_calls(late, repeats):
    """Timings of a clock that only the detector moves; ``late`` calls take ten times as long."""
    truth = LatencyModel(call=2e-3, pixel=2e-8)
    seconds, calls = 0.0, 0

    def detector(image_HW3):
        nonlocal seconds, calls
        seconds += truth(image_HW3.shape[0] * image_HW3.shape[1]) * (10 if calls in late else 1)
        calls += 1
        return Detections.none()

    found = LatencyModel.measure(detector, repeats=repeats, now=lambda: seconds)
    assert found.pixel == pytest.approx(truth.pixel)
    assert found(500_000, calls=2) == pytest.approx(truth(500_000, calls=2))


def test_no_call_takes_negative_time():
    """Times that grow faster than the pixels make a line through the origin."""
    seconds = 0.0

    def detector(image_HW3):
        nonlocal seconds
        seconds += 1e-12 * image_HW3.shape[0] ** 4
        return Detections.none()

    found = LatencyModel.measure(detector, now=lambda: seconds)
    assert found.call == 0 and found.pixel > 0
