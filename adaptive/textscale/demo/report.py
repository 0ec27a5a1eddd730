"""The page of the demonstration.

Shapes: h x w pixels of a canvas, N words, R regions.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from adaptive.core.report import Outlines, Report, picture_plot
from adaptive.core.report.pictures import FOUND, KNOWN, LEFT, LOOKED
from adaptive.core.run import StageContext
from adaptive.textscale.config import TextDemoConfig
from adaptive.textscale.demo.look import PICTURES


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
    report.provenance(config, context.run.path).save(context.dir / "report.html")


def sizes(quad_N42: Float32[ndarray, "N 4 2"]) -> list[str]:
    """What pointing at words tells: their long and short sides."""
    side_N4 = np.linalg.norm(quad_N42 - np.roll(quad_N42, -1, 1), axis=-1)
    pair_N2 = np.sort((side_N4[:, :2] + side_N4[:, 2:]) / 2, axis=1)
    return [f"word {n}: {long:.0f} x {short:.0f} px" for n, (short, long) in enumerate(pair_N2, 1)]


def _image(report: Report, row: dict[str, Any], kept: dict[str, ndarray]) -> None:
    """The section of an image."""
    corner_R42 = kept["padded_R4"][:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    regions = [
        Outlines(corner_R42[kept["again_R"] == again], colour)
        for again, colour in ((0, LEFT), (1, LOOKED))
    ]
    report.section(row["image"]).figure(
        picture_plot(kept["image_HW3"], regions, 0.75 * (1 - kept["probability_hw"])),
        "The prior: bright where pass 1 suspects text, with the regions that follow",
        legend={"looked at again": LOOKED, "not looked at again": LEFT},
    )
    canvases = sorted(name for name in kept if name.startswith("canvas"))
    for number, name in enumerate(canvases):
        h, w = kept[name].shape[:2]
        report.figure(
            picture_plot(kept[name]),
            f"Packed canvas {number + 1} of {len(canvases)}, {w} x {h}: all that pass 2 sees",
        )
    if not canvases:
        report.text("Nothing was worth a second look.")
    words = [Outlines(kept["found_N42"], FOUND, texts=sizes(kept["found_N42"]))]
    legend = {"found": FOUND}
    if len(kept["known_N42"]):
        words.insert(0, Outlines(kept["known_N42"], KNOWN, ":"))
        legend["there (dotted)"] = KNOWN
    report.figure(
        picture_plot(kept["image_HW3"], words),
        f"Words that both passes found: {row['adaptive']['words']}",
        legend=legend,
    )
    for warning in row["warnings"]:
        report.text(warning)


def _of(kept: dict[str, ndarray], name: str) -> dict[str, ndarray]:
    """Arrays of an image, by their names in it."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): v for key, v in kept.items() if key.startswith(prefix)}
