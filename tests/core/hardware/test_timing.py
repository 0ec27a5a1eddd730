"""Medians, their error, and the round-robin, on made-up clocks."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from adaptive.core.hardware import Timing, round_robin


class Machine:
    """Subjects of known cost on a machine that drifts and jitters; time is what they take."""

    def __init__(self, costs, drift=0.0, jitter=0.0):
        self.costs, self.drift, self.jitter = costs, drift, jitter
        self.time, self.random = 0.0, random.Random(1)
        self.ran: list[str] = []

    def now(self):
        return self.time

    def measure(self, order):
        taken = {}
        for name in order:
            slow = 1 + self.drift * self.time + self.jitter * self.random.gauss(0, 1)
            taken[name] = self.costs[name] * slow
            self.time += taken[name]
            self.ran.append(name)
        return taken


def test_summary():
    timing = Timing.of([2.0, 3.0, 4.0, 5.0, 100.0])
    assert timing == Timing(median=4.0, spread=0.25, repeats=5)


def test_error_of_the_median():
    """Against the scatter of many medians of normal samples."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.normal(1.0, 0.05, (4000, 101)), axis=1)
    claimed = [Timing.of(list(rng.normal(1.0, 0.05, 101))).error for _ in range(50)]
    assert np.median(claimed) == pytest.approx(medians.std(), rel=0.1)


def test_stops_when_settled():
    machine = Machine({"a": 1.0, "b": 2.0}, jitter=0.02)
    timings = round_robin(
        machine.costs, machine.measure, target_spread=0.01, max_seconds=1e9, now=machine.now
    )
    assert not timings.unsettled
    assert 7 <= timings["a"].repeats < 100
    assert timings["b"].median == pytest.approx(2.0, rel=0.03)


def test_says_when_it_has_not_settled():
    machine = Machine({"calm": 1.0, "noisy": 1.0}, jitter=0.0)
    flip = itertools.cycle((0.5, 1.5))

    def measure(order):
        return {**machine.measure(order), "noisy": next(flip)}

    timings = round_robin(
        machine.costs, measure, target_spread=0.001, max_seconds=50.0, now=machine.now
    )
    assert timings.unsettled == ["noisy"]
    assert timings["noisy"].repeats == 25


def test_one_round_is_always_run():
    machine = Machine({"slow": 100.0})
    timings = round_robin(machine.costs, machine.measure, max_seconds=1.0, now=machine.now)
    assert timings["slow"] == Timing(100.0, 0.0, 1)


def test_drift_cancels():
    """The machine becomes three times slower; equal subjects still come out equal."""
    costs = dict.fromkeys("abcdef", 1.0)
    machine = Machine(costs, drift=2 / 600)
    timings = round_robin(
        costs, machine.measure, target_spread=0.0, max_rounds=60, max_seconds=1e9, now=machine.now
    )
    medians = [t.median for t in timings.values()]
    assert max(medians) / min(medians) < 1.02
    ratio = timings.ratio("a", "b")
    assert ratio.median == pytest.approx(1.0, abs=0.01) and ratio.spread < 0.02 < 0.2
    assert timings["a"].spread > 0.2
    # Every round runs all, and not always in the same order.
    rounds = {tuple(machine.ran[i : i + 6]) for i in range(0, 360, 6)}
    assert all(sorted(r) == list("abcdef") for r in rounds) and len(rounds) > 30


def test_progress_and_reports():
    machine, shown, reported = Machine({"a": 1.0}), [], []

    def track(iterable, total, desc):
        shown.append((total, desc))
        return iterable

    round_robin(
        machine.costs, machine.measure, max_rounds=9, track=track, desc="timing", now=machine.now,
        on_round=lambda timings: reported.append(timings["a"].repeats),
    )  # fmt: skip
    assert shown == [(8, "timing")]  # a first round shows how many fit
    assert reported == [1, 2, 3, 4, 5, 6, 7]


def test_nothing_to_do():
    assert round_robin([], lambda order: pytest.fail("called")) == {}


def test_too_few_rounds_settle_nothing():
    """Of one sample no error is known, and none is claimed."""
    machine = Machine({"slow": 10.0})
    timings = round_robin(machine.costs, machine.measure, max_seconds=1.0, now=machine.now)
    assert timings["slow"].repeats == 1 and timings.unsettled == ["slow"]
    timings = round_robin(
        machine.costs, machine.measure, max_seconds=1.0, least_rounds=3, now=machine.now
    )
    assert timings["slow"].repeats == 3 and timings.unsettled == ["slow"]
    timings = round_robin(
        machine.costs,
        machine.measure,
        max_seconds=1.0,
        min_rounds=3,
        least_rounds=3,
        now=machine.now,
    )
    assert timings["slow"].repeats == 3 and not timings.unsettled
