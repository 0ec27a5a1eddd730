"""Reports: one HTML page a run, and its pictures."""

from __future__ import annotations

from adaptive.core.report.allocation import allocation_plot, choice_text
from adaptive.core.report.curves import curves_of
from adaptive.core.report.page import Report
from adaptive.core.report.pictures import Outlines, picture_plot
from adaptive.core.report.plots import (
    compare_plot,
    curves_plot,
    frontier_plot,
    ladder_plot,
    predicted_measured_plot,
)

__all__ = [
    "Outlines",
    "Report",
    "allocation_plot",
    "choice_text",
    "compare_plot",
    "curves_of",
    "curves_plot",
    "frontier_plot",
    "ladder_plot",
    "picture_plot",
    "predicted_measured_plot",
]
