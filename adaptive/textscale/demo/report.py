"""The page of the demonstration.

Shapes: H x W pixels, h x w cells of the prior or pixels of a canvas, N words, R regions.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from jaxtyping import Float32, UInt8
from numpy import ndarray

from adaptive.core.report import Report
from adaptive.core.report.style import SERIES, house_style
from adaptive.core.run import StageContext, to_plain
from adaptive.textscale.canvas import resized
from adaptive.textscale.config import TextDemoConfig
from adaptive.textscale.demo.look import PICTURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 8.2  # inches of the page
LONGEST = 1200  # side in pixels of a picture in the page
FOUND, LOOKED, KEPT = "#e6284f", "#1d9a4b", "#9a9a9a"


def report_demo(context: StageContext, config: TextDemoConfig) -> None:
    """Writes the page: prior, canvases and words of each image, and what they cost."""
    from safetensors.numpy import load_file

    kept = load_file(context.input("look") / PICTURES)
    rows = json.loads((context.input("look") / "look.json").read_text(encoding="utf-8"))
    report = Report(config.name, f"{config.checkpoint}: pixels go where text is")
    spent, whole = (sum(row[way]["megapixels"] for row in rows) for way in ("adaptive", "single"))
    report.numbers(
        {
            "megapixels": f"{spent:.2f}",
            "of the images' own": f"{spent / whole:.0%}",
            "words": sum(row["adaptive"]["words"] for row in rows),
        },
        {"megapixels": "both passes, padding included"},
    )
    report.section("What it costs and finds").table(
        [
            {
                "image": row["image"],
                "way": title,
                "words": row[way]["words"],
                "megapixels": row[way]["megapixels"],
                "ms": row[way]["ms"],
                "F (%)": None if row[way]["f"] is None else 100 * row[way]["f"],
            }
            for row in rows
            for way, title in (("adaptive", "two passes"), ("single", "one look, own size"))
        ],
        "One timing of each after a warm-up. Small images are enlarged by the second pass, and "
        "then cost more than their own pixels. F where the words are known.",
    )
    for row in rows:
        _image(report, row, _of(kept, row["image"]))
    plain = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    report.section("Configuration").code("config.yaml", plain)
    report.save(context.dir / "report.html")


@house_style
def prior_plot(
    image_HW3: UInt8[ndarray, "H W 3"],
    probability_hw: Float32[ndarray, "h w"],
    padded_R4: ndarray,
    again_R: ndarray,
) -> Figure:
    """An image, darkened where no text is suspected, with the regions that follow.

    Args:
        image_HW3: RGB.
        probability_hw: of text, of the whole image.
        padded_R4: boxes of the regions in pixels of the image.
        again_R: which ones are looked at again.
    """
    from matplotlib.collections import PolyCollection

    figure, axes = _picture(image_HW3)
    H, W = image_HW3.shape[:2]
    dark_hw4 = np.zeros((*probability_hw.shape, 4), np.float32)
    dark_hw4[..., 3] = 0.75 * (1 - probability_hw)
    axes.imshow(dark_hw4, extent=(0, W, H, 0), interpolation="bilinear")
    corner_R42 = padded_R4[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    for again, colour in ((0, KEPT), (1, LOOKED)):
        axes.add_collection(
            PolyCollection(
                list(corner_R42[again_R == again]), facecolors="none", edgecolors=colour, lw=1
            )
        )
    axes.set(xlim=(0, W), ylim=(H, 0))
    return figure


@house_style
def words_plot(
    image_HW3: UInt8[ndarray, "H W 3"],
    found_N42: Float32[ndarray, "N 4 2"],
    known_N42: Float32[ndarray, "_ 4 2"],
) -> Figure:
    """An image with the words that were found, and those that there are, dotted."""
    from matplotlib.collections import PolyCollection

    figure, axes = _picture(image_HW3)
    H, W = image_HW3.shape[:2]
    for quad_N42, colour, style in ((known_N42, SERIES[0], ":"), (found_N42, FOUND, "-")):
        axes.add_collection(
            PolyCollection(list(quad_N42), facecolors="none", edgecolors=colour, lw=1, ls=style)
        )
    axes.set(xlim=(0, W), ylim=(H, 0))
    return figure


@house_style
def canvas_plot(canvas_hw3: UInt8[ndarray, "h w 3"]) -> Figure:
    """A canvas as the detector sees it."""
    return _picture(canvas_hw3)[0]


def _picture(image_HW3: ndarray) -> tuple[Figure, Any]:
    """A figure of an image alone, on axes in its pixels."""
    from matplotlib.figure import Figure

    H, W = image_HW3.shape[:2]
    zoom = min(1.0, LONGEST / max(H, W))
    # A canvas may be a narrow strip: as high as the page is wide, at most.
    width = min(WIDTH, WIDTH * W / H)
    figure = Figure(figsize=(width, width * H / W))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(
        resized(image_HW3, max(1, round(W * zoom)), max(1, round(H * zoom))), extent=(0, W, H, 0)
    )
    axes.set_axis_off()
    return figure, axes


def _image(report: Report, row: dict[str, Any], kept: dict[str, ndarray]) -> None:
    """The section of an image."""
    report.section(row["image"]).figure(
        prior_plot(kept["image_HW3"], kept["probability_hw"], kept["padded_R4"], kept["again_R"]),
        "The prior: bright where pass 1 suspects text; regions in green are looked at again, those "
        "in grey are not",
    )
    canvases = sorted(name for name in kept if name.startswith("canvas"))
    for number, name in enumerate(canvases):
        h, w = kept[name].shape[:2]
        report.figure(
            canvas_plot(kept[name]),
            f"Packed canvas {number + 1} of {len(canvases)}, {w} x {h}: all that pass 2 sees",
        )
    if not canvases:
        report.text("Nothing was worth a second look.")
    truth = ", and those that there are, dotted" if len(kept["known_N42"]) else ""
    report.figure(
        words_plot(kept["image_HW3"], kept["found_N42"], kept["known_N42"]),
        f"Words that both passes found: {row['adaptive']['words']}, in red{truth}",
    )
    for warning in row["warnings"]:
        report.text(warning)


def _of(kept: dict[str, ndarray], name: str) -> dict[str, ndarray]:
    """Arrays of an image, by their names in it."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): v for key, v in kept.items() if key.startswith(prefix)}
