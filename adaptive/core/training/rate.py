"""The rate of learning over a training."""

from __future__ import annotations

import math


def warmup_cosine(step: int, steps: int, warmup: float, peak: float, end: float) -> float:
    """The rate at a step, from 0: a linear rise, then half a cosine.

    Args:
        step: of the training, from 0.
        steps: of the whole training.
        warmup: steps of the rise.
        peak: rate at its end.
        end: rate after the last step.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if step >= steps:
        return end
    part = (step - warmup) / (steps - warmup)
    return end + (peak - end) * (1 + math.cos(math.pi * part)) / 2
