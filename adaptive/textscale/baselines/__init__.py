"""Other ways to spend pixels on text over the same detector, to hold the second look against."""

from adaptive.textscale.baselines import (  # noqa: F401 (register)
    fixed_zoom,
    single,
    three_zooms,
    tiling,
)
from adaptive.textscale.baselines.registry import BASELINES, Baseline, Counted

__all__ = ["BASELINES", "Baseline", "Counted"]
