"""Seconds by pixels."""

from __future__ import annotations

import time

import pytest

from adaptive.textscale.latency import LatencyModel
from adaptive.textscale.words import Detections


def test_a_line_is_found_again():
    truth = LatencyModel(call=2e-3, pixel=2e-8)

    def detector(image_HW3):
        end = time.perf_counter() + truth(image_HW3.shape[0] * image_HW3.shape[1])
        while time.perf_counter() < end:
            pass
        return Detections.none()

    found = LatencyModel.measure(detector, repeats=5)
    assert found.pixel == pytest.approx(truth.pixel, rel=0.25)
    assert found(500_000, calls=2) == pytest.approx(truth(500_000, calls=2), rel=0.25)
