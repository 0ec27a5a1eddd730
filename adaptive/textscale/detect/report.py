"""The report of a ``textscale_detect`` run.

Shapes: H x W pixels of a picture.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.core.report import Report
from adaptive.core.report.style import house_style
from adaptive.core.run import StageContext, to_plain
from adaptive.textscale.config import TextDetectConfig
from adaptive.textscale.data.images import decode_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = 6
LISTED = 100
WIDTH = 8.2  # inches of the page


def report_folder(config: TextDetectConfig, context: StageContext) -> None:
    """Writes the page: what was found and spent, what was left out, some overlays."""
    folder = json.loads((context.input("detect") / "folder.json").read_text(encoding="utf-8"))
    output, count = Path(config.output).expanduser(), max(folder["images"], 1)
    report = Report(config.name, f"{config.input}: {folder['images']} images")
    report.numbers(
        {
            "images": folder["images"],
            "words": folder["words"],
            "megapixels an image": folder["megapixels"] / count,
            "ms an image": 1e3 * folder["seconds"] / count,
        },
        {"megapixels an image": "both passes, padding included"},
    )
    most = sorted(folder["found"].items(), key=lambda item: -item[1]["words"])[:LISTED]
    rows = [
        {"image": r["image"], "pixels": f"{r['width']} x {r['height']}", "words": r["words"]}
        for _, r in most
    ]
    report.section("Images").table(rows, f"Those with most words, {LISTED} at most")
    told = {**folder["skipped"], **{k: " ".join(v) for k, v in folder["warnings"].items()}}
    if told:
        rows = [{"image": name, "what": text} for name, text in told.items()]
        report.section("Left out, or not covered").table(rows[:LISTED])
    if config.overlays and most:
        report.section("Pictures")
        for sample, record in most[:PICTURES]:
            path = output / "overlays" / f"{sample}.jpg"
            report.figure(
                picture_plot(decode_image(path.read_bytes(), path.name)),
                f"{record['image']}: words in red, regions that were looked at again in green, "
                "others grey",
            )
    plain = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    report.section("Configuration").code("config.yaml", plain)
    report.save(context.dir / "report.html")


@house_style
def picture_plot(picture_HW3: UInt8[ndarray, "H W 3"]) -> Figure:
    """A picture as wide as the page."""
    from matplotlib.figure import Figure

    height, width = picture_HW3.shape[:2]
    figure = Figure(figsize=(WIDTH, WIDTH * height / width))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(picture_HW3, aspect="auto")
    return figure
