"""The promise against the fact: children timed in turns with their parent at its full grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from adaptive.core.hardware import Clock, Timings
from adaptive.quadformer.latency import forward, random_images
from adaptive.quadformer.model import Quadformer
from adaptive.quadformer.settings import EvaluateConfig

PARENT = "parent"


@dataclass(frozen=True)
class Measured:
    """Of a child beside its parent.

    Attributes:
        latency: seconds of a forward of the batch.
        speedup: how many times as fast as the parent, from ratios within rounds.
        spread: half the interquartile range of that ratio, relative.
    """

    latency: float
    speedup: float
    spread: float


def time_children(
    parent: Quadformer,
    children: Mapping[str, tuple[Quadformer, int]],
    clock: Clock,
    settings: EvaluateConfig,
) -> tuple[float, dict[str, Measured]]:
    """The parent's seconds at its full grid, and every child's.

    Args:
        parent: on the clock's device.
        children: model and number of tokens, by name.
        clock: device and mode.
        settings: batch, precision and seconds.
    """
    image_BCHW = random_images(parent, settings.speed_batch)
    subjects: dict[str, Callable[[], Any]] = {
        PARENT: partial(forward, parent, image_BCHW, parent.geometry.cells, settings)
    }
    for name, (child, tokens) in children.items():
        subjects[name] = partial(forward, child, image_BCHW, tokens, settings)
    timings: Timings = clock.compare(
        subjects,
        None if clock.device.startswith("cuda") else 1,
        target_spread=0.003,
        max_seconds=settings.seconds,
    )
    found = {}
    for name in children:
        ratio = timings.ratio(PARENT, name)
        found[name] = Measured(timings[name].median, ratio.median, ratio.spread)
    return timings[PARENT].median, found
