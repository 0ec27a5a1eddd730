"""The report of a training.

Shapes: H x W pixels, h x w cells, N words, 4 corners, 2 coordinates.
"""

from __future__ import annotations

from typing import Any

import yaml

from adaptive.core.report import Report, curves_plot
from adaptive.core.run import StageContext, to_plain
from adaptive.textscale.train.config import TextTrainConfig
from adaptive.textscale.words import CANONICAL

PARTS = ("loss", "text", "overlap", "border", "scale")


def report_training(context: StageContext, config: TextTrainConfig) -> None:
    """Writes the page: losses, F in training, the network's maps, configuration."""
    history = [r for r in context.run.metrics.records() if r["stage"] == "train"]
    report = Report(config.name, f"text network {config.net.size!r}, {config.train.steps} steps")
    losses = {
        part: [(record["step"], record[part]) for record in history if part in record]
        for part in PARTS
    }
    report.section("Training")
    report.figure(curves_plot(losses, y="loss"), "Loss of the batches, and its parts")
    curves = {
        key: [(record["step"], record[key]) for record in history if key in record]
        for key in ("f", "precision", "recall")
    }
    if curves["f"]:
        report.figure(
            curves_plot(curves, y="share"),
            f"Validation by the rules of ICDAR 2015, long side {config.detect.long_side}",
        )
    if "evaluate" in context.needs:
        pictures = context.input("evaluate") / "pictures.safetensors"
        if pictures.is_file():
            from safetensors.numpy import load_file

            report.section("Maps").figure(
                maps_plot(load_file(pictures)),
                "Words found; probability of text; scale in pixels where there is text; outlines",
            )
    plain = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    report.section("Configuration").code("config.yaml", plain)
    report.save(context.dir / "report.html")


def maps_plot(kept: dict[str, Any]) -> Any:
    """A row for each image: the words found, and the network's three maps.

    Args:
        kept: ``N.image_HW3``, ``N.probability_hw``, ``N.log_scale_hw``, ``N.border_hw`` and
            ``N.quad_N42`` of each image.
    """
    import numpy as np
    from matplotlib.figure import Figure

    count = len({name.split(".")[0] for name in kept})
    figure = Figure(figsize=(12, 2.2 * count), layout="constrained")
    axes = figure.subplots(count, 4, squeeze=False)
    for row, axis in enumerate(axes):
        probability_hw = kept[f"{row}.probability_hw"]
        axis[0].imshow(kept[f"{row}.image_HW3"])
        for quad_42 in kept[f"{row}.quad_N42"]:
            axis[0].plot(*quad_42[[0, 1, 2, 3, 0]].T, color="lime", linewidth=1)
        axis[1].imshow(probability_hw, vmin=0, vmax=1)
        scale_hw = CANONICAL * np.exp(kept[f"{row}.log_scale_hw"])
        shown = axis[2].imshow(np.ma.masked_where(probability_hw < 0.3, scale_hw), vmin=0, vmax=64)
        figure.colorbar(shown, ax=axis[2], fraction=0.03)
        axis[3].imshow(kept[f"{row}.border_hw"], vmin=0, vmax=1)
        for each in axis:
            each.set_axis_off()
    return figure
