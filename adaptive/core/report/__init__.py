"""Reports: one HTML page a run, and its pictures."""

from __future__ import annotations

from adaptive.core.report.page import Report
from adaptive.core.report.plots import (
    allocation_plot,
    compare_plot,
    curves_plot,
    frontier_plot,
    ladder_plot,
    predicted_measured_plot,
)

__all__ = [
    "Report",
    "allocation_plot",
    "compare_plot",
    "curves_plot",
    "frontier_plot",
    "ladder_plot",
    "predicted_measured_plot",
]
