"""The page of a ``textscale_tokens`` run."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from adaptive.core.report import Report, curves_plot
from adaptive.core.report.mosaic import mosaic_plot
from adaptive.core.run import StageContext
from adaptive.textscale.compare.stages import UNREADABLE
from adaptive.textscale.evaluate.by_height import BANDS
from adaptive.textscale.tokens.config import ORACLE, TextTokensConfig
from adaptive.textscale.tokens.stages import PICTURES, picture_share, read_table


def report_tokens(config: TextTokensConfig, context: StageContext) -> None:
    """Writes ``report.html``: words covered, words found, and where the tokens lie."""
    shown = read_table(context, "cover")
    unreadable = json.loads((context.input("cover") / UNREADABLE).read_text(encoding="utf-8"))
    report = Report("Tokens where text is", config.data.images)
    if unreadable:
        report.text(
            f"Photographs that could not be read and were left out: {len(unreadable)} "
            f"({', '.join(unreadable[:5])}{', ...' if len(unreadable) > 5 else ''})."
        )
    report.section("Words covered").text(
        f"A word is covered when {config.cover.whole:.0%} of its area lies in patches that show it "
        f"at {config.cover.legible:g} pixels of height, or in the finest ones. No network is asked."
    )
    if ORACLE in config.priors:
        report.text(
            "The oracle knows the annotated words: a ceiling, no method, so that its milliseconds "
            "and GMAC are left out."
        )
    curves = {
        name: [(float(share), 100 * y) for share, y in row["covered"].items() if y is not None]
        for name, row in shown.items()
    }
    report.figure(
        curves_plot(curves, x="share of the full grid's tokens", y="words covered (%)"),
        "Up and left is better",
    )
    report.table(
        [_covered(name, row, config.shares) for name, row in shown.items()], "Words covered (%)"
    )
    share = f"{picture_share(config):g}"
    report.table(
        [
            {"prior": name} | {band: _percent(row["by_height"][band][share]) for band in BANDS}
            for name, row in shown.items()
        ],
        f"Words covered (%) with {share} of the tokens, by their height in pixels of the input",
    )
    found = read_table(context, "detect") | read_table(context, "rival")
    if found:
        _found(report, found)
    _pictures(report, context, config, list(shown))
    report.provenance(config, context.run.path).save(context.dir / "report.html")


def _covered(name: str, row: dict[str, Any], shares: list[float]) -> dict[str, Any]:
    """A prior's row of the table of coverage."""
    return {
        "prior": name,
        **{f"{share:g}": _percent(row["covered"][f"{share:g}"]) for share in shares},
        "all words, half of the images": row["all_words"]["median"],
        "nine in ten": row["all_words"]["p90"],
        "ms": row["ms"],
        "GMAC": row["gmac"],
    }


def _found(report: Report, found: dict[str, Any]) -> None:
    report.section("Words found")
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in found.values():
        if row["prior"] is None:
            continue
        start = [(1.0, 100 * found["full"]["f"])] if "full" in found else []
        curves.setdefault(row["prior"], start).append((row["tokens"], 100 * row["f"]))
    if curves:
        report.figure(
            curves_plot(curves, x="share of the full grid's tokens", y="F (%)"),
            "By the rules of ICDAR 2015; up and left is better",
        )
    rows = [
        {
            "way": name,
            "F (%)": 100 * row["f"],
            "precision (%)": 100 * row["precision"],
            "recall (%)": 100 * row["recall"],
            **{band: _percent(row[f"recall.{band}"]) for band in BANDS},
            "GMAC": row["gmac"],
            "megapixels": row["megapixels"],
            "ms": row["ms_per_image"],
        }
        for name, row in found.items()
    ]
    report.table(
        rows,
        "PRIOR.SHARE of the tokens; recall (%) by height; GMAC of the first image and median wall "
        "time of an image with the prior's, where it is not the oracle; rival: the other detector "
        "at a long side",
    )


def _pictures(
    report: Report, context: StageContext, config: TextTokensConfig, shown: list[str]
) -> None:
    from safetensors.numpy import load_file

    kept = load_file(context.input("cover") / PICTURES)
    pixel_B3HW = np.stack([kept["pixel_3HW"]] * len(shown))
    report.section("Where they lie").figure(
        mosaic_plot(pixel_B3HW, [kept[f"{name}.box_N3"] for name in shown], shown, 2),
        f"The photograph with most words, with {picture_share(config):g} of the tokens",
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
