"""The report of a ``textscale_render`` run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from adaptive.core.report import Report
from adaptive.core.report.style import SERIES, canvas, house_style
from adaptive.core.run import StageContext, to_plain
from adaptive.textscale.data.config import TextRenderConfig
from adaptive.textscale.data.labelled import LabelledImages, Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES, SIDE = 6, 360


def report_render(context: StageContext, config: TextRenderConfig) -> None:
    """Writes the page: some of the images with their words, and the heights of all words."""
    scales = json.loads((context.input("render") / "scales.json").read_text(encoding="utf-8"))
    images = LabelledImages(Path(config.output).expanduser())
    report = Report(config.name, f"{len(images)} images in {config.output}")
    report.numbers({"images": len(images), "words": len(scales)})
    report.section("Images").figure(
        contact_sheet(images[: min(PICTURES, len(images))]),
        "The first images with the corners of their words; dotted: not to be cared about",
    )
    if scales:
        report.section("Heights").figure(
            height_histogram(scales), "Short sides of the words that count"
        )
    plain = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    report.section("Configuration").code("config.yaml", plain).save(context.dir / "report.html")


@house_style
def contact_sheet(samples: Sequence[Sample]) -> Figure:
    """Images side by side, three in a row, with the outlines of their words."""
    import cv2
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    rows = -(-len(samples) // 3)
    figure = Figure(figsize=(8.2, 2.8 * rows), layout="constrained")
    grid = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (_, image_HW3, words) in zip(grid, samples, strict=False):
        height, width = image_HW3.shape[:2]
        factor = min(1.0, SIDE / max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        small_hw3 = cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)
        axes.imshow(small_hw3, extent=(0, width, height, 0))
        for care, style in ((True, "-"), (False, ":")):
            quads = list(words.quad_N42[words.care_N == care])
            axes.add_collection(
                PolyCollection(quads, facecolors="none", edgecolors="lime", lw=0.6, ls=style)
            )
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
