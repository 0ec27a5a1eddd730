"""The report of a ``textscale_detect`` run."""

from __future__ import annotations

import json
from pathlib import Path

from adaptive.core.report import Report, picture_plot
from adaptive.core.run import StageContext
from adaptive.textscale.config import TextDetectConfig
from adaptive.textscale.data.images import decode_image
from adaptive.textscale.detect.overlay import LEGEND

PICTURES = 6
LISTED = 100


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
                f"{record['image']}: {record['words']} words",
                legend=LEGEND,
            )
    report.provenance(config, context.run.path).save(context.dir / "report.html")
