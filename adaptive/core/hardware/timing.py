"""Statistics of repeated timings, and the round-robin that makes them comparable.

A busy or throttling machine drifts by several percent within seconds. Timing one candidate after
the other turns that drift into differences between candidates; timing all of them in turns, in a
new random order each round, spreads it over all alike.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Measure = Callable[[Sequence[str]], Mapping[str, float]]
"""Runs subjects in the order given and returns the seconds of one call of each."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        median: median over the repeats, in seconds.
        spread: half the interquartile range of the repeats, relative to the median.
        repeats: number of repeats.
    """

    median: float
    spread: float
    repeats: int

    @property
    def error(self) -> float:
        """Relative standard error of the median, were the repeats independent and normal.

        The interquartile range of a normal law is 1.349 sigma and the median of n values has a
        standard error of 1.2533 sigma / sqrt(n).
        """
        return 1.2533 * (2 * self.spread / 1.349) / self.repeats**0.5

    @classmethod
    def of(cls, samples: list[float]) -> Timing:
        """Summary of ``samples`` in seconds."""
        low, median, high = np.percentile(samples, (25, 50, 75))
        spread = (high - low) / 2 / median if median > 0 else 0.0
        return cls(float(median), float(spread), len(samples))


class Timings(dict[str, Timing]):
    """Timings by name, with the samples round by round.

    Attributes:
        samples: name to seconds, in round order; entry i of all names is of the same round.
        unsettled: names whose error was still above the target when time ran out, or that had too
            few rounds for an error to be known.
    """

    def __init__(
        self, samples: Mapping[str, list[float]], target_spread: float, min_rounds: int = 1
    ):
        super().__init__({name: Timing.of(values) for name, values in samples.items()})
        self.samples = samples
        self.unsettled = [
            name for name, t in self.items() if t.error > target_spread or t.repeats < min_rounds
        ]

    def ratio(self, name: str, other: str) -> Timing:
        """How many times as long ``name`` takes as ``other``: statistics of the rounds' ratios.

        Within a round both ran within moments of each other, so drift cancels that would not
        cancel in the ratio of the two medians.
        """
        pairs = zip(self.samples[name], self.samples[other], strict=True)
        return Timing.of([a / b for a, b in pairs])


def round_robin(
    names: Iterable[str],
    measure: Measure,
    *,
    target_spread: float = 0.01,
    max_seconds: float = 10.0,
    min_rounds: int = 7,
    max_rounds: int = 1000,
    least_rounds: int = 1,
    track: Callable[..., Any] | None = None,
    desc: str = "measuring",
    on_round: Callable[[Timings], None] | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Measures all subjects round after round until every median is known well enough.

    Args:
        names: the subjects.
        measure: runs the subjects in the given order and returns the seconds of one call of each.
        target_spread: stop once the relative error of every median is at most this.
        max_seconds: start no further round after this time.
        min_rounds: rounds before the error is trusted.
        max_rounds: rounds after which to stop in any case.
        least_rounds: rounds that are run however long they take.
        track: progress display ``track(iterable, total=..., desc=...)``.
        desc: what the progress display calls the loop.
        on_round: called with the timings so far after each round.
        now: clock for ``max_seconds``.

    Returns:
        The timings; ``unsettled`` names those that did not reach ``target_spread``.
    """
    order, shuffle = list(names), random.Random(0).shuffle
    samples: dict[str, list[float]] = {name: [] for name in order}
    start = now()

    def one_round() -> Timings:
        shuffle(order)
        for name, seconds in measure(order).items():
            samples[name].append(seconds)
        timings = Timings(samples, target_spread, min_rounds)
        if on_round:
            on_round(timings)
        return timings

    if not order:
        return Timings({}, target_spread)
    timings = one_round()
    # How many rounds fit is only known now; it is what the display counts towards.
    fit = math.ceil((max_seconds - (now() - start)) / max(now() - start, 1e-9))
    rest: Iterable[int] = range(1, max_rounds)
    if track and fit > 0:
        rest = track(rest, total=min(fit, max_rounds - 1), desc=desc)
    for done in rest:
        late = now() - start >= max_seconds and done >= least_rounds
        if late or not timings.unsettled:
            break
        timings = one_round()
    return timings
