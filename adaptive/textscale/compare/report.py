"""The page of a ``textscale_eval`` run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adaptive.core.report import Outlines, Report, frontier_plot, picture_plot
from adaptive.core.report.pictures import FOUND, KNOWN, LOOKED
from adaptive.core.run import StageContext
from adaptive.textscale.compare.stages import ABOUT, PICTURED, PICTURES, read_tables
from adaptive.textscale.config import TextEvalConfig
from adaptive.textscale.evaluate.by_height import BANDS

OWN, ORACLE, SINGLE = "adaptive", "oracle", "single_"
MEANT = {
    OWN: "two looks under the budget",
    ORACLE: "the second look by a prior that knows every word: a ceiling, no method",
    "single scale": "one look at the whole image, at several long sides",
    "tiling": "overlapping tiles of the whole image",
    "fixed_zoom": "regions of pass 1, all at one zoom",
    "three_zooms": "regions of pass 1, at one of three zooms",
}


def report_comparison(config: TextEvalConfig, context: StageContext) -> None:
    """Writes ``report.html``."""
    from safetensors.numpy import load_file

    table = read_tables(context, "single", "others", "second")
    about = json.loads((context.input("second") / ABOUT).read_text(encoding="utf-8"))
    own = table[OWN]
    report = Report(config.name, f"{config.data.images}, budget {_budget(config)}")
    seen = about["pass1_recall"]
    report.numbers(
        {
            "F (%)": f"{100 * own['f']:.1f}",
            "megapixels": f"{own['megapixels']:.3f}",
            "ms": f"{own['ms_per_image']:.0f}",
            "words seen (%)": None if seen is None else f"{100 * seen:.0f}",
        },
        {
            "F (%)": "by the rules of ICDAR 2015",
            "megapixels": "an image, both passes",
            "ms": "an image, the median",
            "words seen (%)": "by pass 1",
        },
    )
    _methods(report, table)
    _heights(report, about["heights"])
    kept = load_file(context.input("second") / PICTURES)
    report.section("Photographs")
    for number in range(PICTURED):
        found = {k.partition(".")[2]: v for k, v in kept.items() if k.startswith(f"{number}.")}
        if found:
            _picture(report, found, number)
    report.provenance(config, context.run.path).save(context.dir / "report.html")


def _methods(report: Report, table: Mapping[str, Mapping[str, float]]) -> None:
    """A table of all methods, ours first, and F against what it costs."""
    ranked = sorted(table.items(), key=lambda item: (item[0] != OWN, item[1]["megapixels"]))
    rows = [
        {
            "method": f"**{name}**" if name == OWN else name,
            "F (%)": 100 * row["f"],
            "megapixels": row["megapixels"],
            "ms": row["ms_per_image"],
            "precision (%)": 100 * row["precision"],
            "recall (%)": 100 * row["recall"],
        }
        for name, row in ranked
    ]
    report.section("Methods").table(
        rows, "Pixels of all inputs of the networks with padding; median wall time of an image"
    )
    singles = {name: row for name, row in table.items() if name.startswith(SINGLE)}
    others = {
        name: [(row["megapixels"], 100 * row["f"])]
        for name, row in table.items()
        if name != OWN and not name.startswith(SINGLE)
    }
    if singles:
        others["single scale"] = [(row["megapixels"], 100 * row["f"]) for row in singles.values()]
    notes = {name: [_told(row)] for name, row in table.items()}
    notes["single scale"] = [f"{name}: {_told(row)}" for name, row in singles.items()]
    figure = frontier_plot(
        [(table[OWN]["megapixels"], 100 * table[OWN]["f"])],
        x="megapixels an image",
        y="F (%)",
        others=others,
        notes=notes,
        name=OWN,
    )
    report.figure(figure, "F against pixels: up and left is better")
    report.facts({name: MEANT[name] for name in (OWN, *others) if name in MEANT})


def _heights(report: Report, heights: Mapping[str, Mapping[str, Any]]) -> None:
    report.section("Recall by height").table(
        [
            {
                "height (px)": f"{low:g} to {high:g}" if high < 1e9 else f"{low:g} and more",
                "words": heights[name]["words"],
                "found": heights[name]["matches"],
                "recall (%)": None
                if heights[name]["recall"] is None
                else 100 * heights[name]["recall"],
            }
            for name, (low, high) in BANDS.items()
        ],
        f"Words that count, by their short side in the photograph; of {OWN}",
    )


def _picture(report: Report, kept: Mapping[str, Any], number: int) -> None:
    outlines = [
        Outlines(kept["regions_R42"], LOOKED, ":"),
        Outlines(kept["missed_N42"], KNOWN),
        Outlines(kept["found_N42"], FOUND),
    ]
    report.figure(
        picture_plot(kept["image_HW3"], outlines),
        f"Photograph {number + 1}: {len(kept['found_N42'])} boxes, "
        f"{len(kept['missed_N42'])} words missed",
        legend={"boxes": FOUND, "words missed": KNOWN, "regions of pass 1 (dotted)": LOOKED},
    )


def _told(row: Mapping[str, float]) -> str:
    return (
        f"precision {100 * row['precision']:.1f} %, recall {100 * row['recall']:.1f} %, "
        f"{row['ms_per_image']:.0f} ms"
    )


def _budget(config: TextEvalConfig) -> str:
    limits = {k: v for k, v in config.budget.limits().items() if v is not None}
    return ", ".join(f"{name} {value}" for name, value in limits.items()) or "none"
