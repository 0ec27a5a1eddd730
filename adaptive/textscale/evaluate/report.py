"""The report of a ``textscale_score`` run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from adaptive.core.report import Report
from adaptive.core.run import StageContext
from adaptive.textscale.evaluate.by_height import BANDS, HeightRecall
from adaptive.textscale.evaluate.config import TextscaleScoreConfig

WORST = 20
"""Images that the report lists: those with most mistakes."""


def report_score(context: StageContext, config: TextscaleScoreConfig) -> None:
    """Writes the page: the competition's numbers, recall by height, images with most mistakes."""
    found = json.loads((context.input("score") / "score.json").read_text(encoding="utf-8"))
    total, tight = found["total"], found["tiou"]
    report = Report(config.name, f"{config.results} against {config.gt}")
    names = ("precision", "recall", "hmean")
    report.numbers({name: total[name] for name in names})
    report.text(
        f"{total['matches']:,} matches of {total['care_words']:,} words and "
        f"{total['care_detections']:,} detections that count, by the rules of ICDAR 2015, "
        "Challenge 4: IoU above 0.5, one to one."
    )
    report.section("Tightness").table(
        [{"rule": "ICDAR 2015", **{n: total[n] for n in names}}, {"rule": "TIoU", **tight}],
        "TIoU (Liu et al. 2019) discounts matches of words that are cut or merged",
    )
    report.section("By height").table(
        height_rows({n: HeightRecall(**band) for n, band in found["by_height"].items()}),
        "Recall by the short side of each word's smallest rectangle",
    )
    report.section("Most mistakes").table(
        worst_images(found["images"]), f"The {WORST} images with most misses and false alarms"
    )
    report.provenance(config, context.run.path).save(context.dir / "report.html")


def height_rows(bands: Mapping[str, HeightRecall]) -> list[dict[str, Any]]:
    """A row of a table for each band of heights."""
    return [
        {
            "height (px)": _range(*BANDS[name]),
            "words": band.words,
            "found": band.matches,
            "recall": band.recall,
        }
        for name, band in bands.items()
    ]


def worst_images(images: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the images with most mistakes, the worst first; images without any are left out."""
    rows = [
        {
            "image": name,
            "missed words": one["care_words"] - one["matches"],
            "false alarms": one["care_detections"] - one["matches"],
            "matches": one["matches"],
        }
        for name, one in images.items()
    ]
    wrong = [row for row in rows if row["missed words"] + row["false alarms"]]
    return sorted(wrong, key=lambda row: -(row["missed words"] + row["false alarms"]))[:WORST]


def _range(low: float, high: float) -> str:
    if not low:
        return f"below {high:g}"
    return f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} and more"
