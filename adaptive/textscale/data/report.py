"""The report of a ``textscale_render`` run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adaptive.core.report import Report
from adaptive.core.report.pictures import FOUND, LEFT, Outlines, show_picture
from adaptive.core.report.style import SERIES, canvas, house_style
from adaptive.core.run import StageContext
from adaptive.textscale.data.config import TextscaleRenderConfig
from adaptive.textscale.data.labelled import LabelledImages, Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES, SIDE = 6, 360


def report_render(context: StageContext, config: TextscaleRenderConfig) -> None:
    """Writes the page: some of the images with their words, and the heights of all words."""
    scales = json.loads((context.input("render") / "scales.json").read_text(encoding="utf-8"))
    images = LabelledImages(Path(config.output).expanduser())
    report = Report(config.name, f"{len(images)} images in {config.output}")
    report.numbers({"images": len(images), "words": len(scales)})
    report.section("Images").figure(
        contact_sheet(images[: min(PICTURES, len(images))]),
        "The first images with the outlines of their words",
        legend={"words": FOUND, "not to be cared about": LEFT},
    )
    if scales:
        report.section("Heights").figure(
            height_histogram(scales), "Short sides of the words that count"
        )
    report.provenance(config, context.run.path).save(context.dir / "report.html")


@house_style
def contact_sheet(samples: Sequence[Sample]) -> Figure:
    """Images side by side, three in a row, with the outlines of their words."""
    from matplotlib.figure import Figure

    rows = -(-len(samples) // 3)
    figure = Figure(figsize=(8.2, 2.8 * rows), layout="constrained")
    grid = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (_, image_HW3, words) in zip(grid, samples, strict=False):
        quads = [
            Outlines(words.quad_N42[words.care_N == care], FOUND if care else LEFT)
            for care in (True, False)
        ]
        show_picture(axes, image_HW3, quads, longest=SIDE)
    return figure


@house_style
def height_histogram(scales: Sequence[float]) -> Figure:
    """How many words there are of each height, on a logarithmic axis."""
    figure, axes = canvas(height=2.6)
    low, high = min(scales), max(max(scales), min(scales) * 1.01)
    axes.hist(scales, np.geomspace(low, high, 24), color=SERIES[0])
    axes.set_xscale("log")
    axes.set(xlabel="height (px)", ylabel="words")
    return figure
