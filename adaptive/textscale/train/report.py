"""The report of a training.

Shapes: H x W pixels, h x w cells, N words, 4 corners, 2 coordinates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptive.core.report import Report, curves_of, curves_plot
from adaptive.core.report.pictures import FOUND, Outlines, show_picture
from adaptive.core.report.style import GRID, house_style
from adaptive.core.run import StageContext
from adaptive.textscale.train.config import TextTrainConfig
from adaptive.textscale.words import CANONICAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = ("loss", "text", "overlap", "border", "scale")


def report_training(context: StageContext, config: TextTrainConfig) -> None:
    """Writes the page: losses, F in training, the network's maps, configuration."""
    history = [r for r in context.run.metrics.records() if r["stage"] == "train"]
    report = Report(config.name, f"text network {config.net.size!r}, {config.train.steps} steps")
    images = ("samples", config.train.batch)
    report.section("Training").figure(
        curves_plot(curves_of(history, PARTS), y="loss", again=images),
        "Loss of the batches, and its parts",
    )
    curves = curves_of(history, {"f": "F", "precision": "precision", "recall": "recall"})
    if curves:
        report.figure(
            curves_plot(curves, y="share", again=images),
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
    report.provenance(config, context.run.path).save(context.dir / "report.html")


@house_style
def maps_plot(kept: dict[str, Any]) -> Figure:
    """A row for each image: the words found, and the network's three maps.

    Args:
        kept: ``N.image_HW3``, ``N.probability_hw``, ``N.log_scale_hw``, ``N.border_hw`` and
            ``N.quad_N42`` of each image.
    """
    import numpy as np
    from matplotlib.figure import Figure

    count = len({name.split(".")[0] for name in kept})
    figure = Figure(figsize=(8.2, 1.75 * count + 0.2), layout="constrained")
    axes = figure.subplots(count, 4, squeeze=False)
    for axis, title in zip(axes[0], ("words", "text", "height (px)", "outlines"), strict=True):
        axis.set_title(title)
    for row, axis in enumerate(axes):
        probability_hw = kept[f"{row}.probability_hw"]
        words = Outlines(kept[f"{row}.quad_N42"], FOUND)
        show_picture(axis[0], kept[f"{row}.image_HW3"], [words], longest=400)
        axis[1].imshow(probability_hw, vmin=0, vmax=1)
        axis[2].set_facecolor(GRID)
        scale_hw = CANONICAL * np.exp(kept[f"{row}.log_scale_hw"])
        shown = axis[2].imshow(np.ma.masked_where(probability_hw < 0.3, scale_hw), vmin=0, vmax=64)
        figure.colorbar(shown, ax=axis[2], fraction=0.03)
        axis[3].imshow(kept[f"{row}.border_hw"], vmin=0, vmax=1)
        for each in axis:  # the ground of where there is no text stays
            each.set(xticks=[], yticks=[])
            each.spines[:].set_visible(False)
    return figure
