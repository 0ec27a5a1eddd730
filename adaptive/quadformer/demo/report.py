"""The page of the demonstration.

Shapes: F photographs, H x W pixels, r x c of a prior's map.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from adaptive.core.report import Report, frontier_plot
from adaptive.core.report.mosaic import mosaic_plot
from adaptive.core.report.style import house_style
from adaptive.core.run import StageContext
from adaptive.quadformer.config import QuadformerDemoConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 4  # budgets beside each other in the mosaics


def report_demo(context: StageContext, config: QuadformerDemoConfig) -> None:
    """Writes the page: mosaics, prior, costs and answers of every budget."""
    from safetensors.numpy import load_file

    pictures = load_file(context.input("look") / "look.safetensors")
    look = json.loads((context.input("look") / "look.json").read_text(encoding="utf-8"))
    rows = json.loads((context.input("sweep") / "sweep.json").read_text(encoding="utf-8"))
    full, coarse = rows[-1], rows[:-1] or rows
    best = max(coarse, key=lambda row: row["speedup"])
    report = Report(config.name, f"{config.checkpoint}: one set of weights, any budget of tokens")
    report.numbers(
        {
            "tokens": f"{best['tokens']} of {full['tokens']}",
            "times as fast": f"{best['speedup']:.2f}x",
            "agrees with the full grid": f"{look['agreement'][str(best['tokens'])]:.0f} %",
        },
        {"times as fast": "measured here", "agrees with the full grid": f"{look['views']} views"},
    )
    _mosaics(report, config, pictures, [row["tokens"] for row in coarse])
    report.section("What the prior finds worth fine patches").figure(
        prior_plot(pictures["pixel_F3HW"], pictures["prior_Frc"], config.photos),
        "Brighter regions are split first; the prior reads the photograph, not the network",
    )
    _costs(report, config, look, rows)
    _answers(report, config, look)
    report.provenance(config, context.run.path).save(context.dir / "report.html")


@house_style
def prior_plot(
    pixel_F3HW: UInt8[np.ndarray, "F 3 H W"],
    prior_Frc: Float[np.ndarray, "F r c"],
    titles: Sequence[str],
) -> Figure:
    """Photographs above the maps of their prior."""
    from matplotlib.figure import Figure

    count = len(pixel_F3HW)
    width = min(8.2, 2.2 * count)
    figure = Figure(figsize=(width, 2 * width / count + 0.3), layout="constrained")
    grid = figure.subplots(2, count, squeeze=False)
    for number, (above, below) in enumerate(grid.T):
        above.imshow(pixel_F3HW[number].transpose(1, 2, 0))
        above.set_title(titles[number], fontsize=8.5)
        # Scores span decades; their order is what counts.
        below.imshow(np.sqrt(prior_Frc[number]), cmap="magma", interpolation="nearest")
        for axes in (above, below):
            axes.set_axis_off()
    return figure


def _mosaics(
    report: Report, config: QuadformerDemoConfig, pictures: dict[str, Any], budgets: list[int]
) -> None:
    budgets = budgets[:SHOWN]
    pixels, boxes, titles = [], [], []
    for number, name in enumerate(config.photos):
        for tokens in budgets:
            pixels.append(pictures["pixel_F3HW"][number])
            boxes.append(pictures[f"box_FN3.{tokens}"][number])
            titles.append(f"{name}, {tokens}")
    report.section("The same photographs in few and in many patches").figure(
        mosaic_plot(np.stack(pixels), boxes, titles, columns=len(budgets)),
        "Every patch becomes one token, whatever its size, and is seen at the resolution of the "
        "smallest",
    )


def _costs(
    report: Report, config: QuadformerDemoConfig, look: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    training = look["training"] or {"accuracy": {}}
    known = training["accuracy"]
    report.section("What a budget costs, and what it keeps").table(
        [
            {
                "tokens": row["tokens"],
                "GMAC": row["gmacs"],
                "images/s": row["images_per_second"],
                "times as fast": row["speedup"],
                "agreement (%)": look["agreement"][str(row["tokens"])],
                "top-1 accuracy (%)": known.get(str(row["tokens"])),
            }
            for row in rows
        ],
        f"Medians of rounds in turns, eager, batches of {config.batch}, prior and selection "
        "included. Agreement: views of the photographs whose most likely class is the full "
        "grid's.",
    )
    if known:
        report.text(
            f"Accuracy was measured by the run that trained the weights (`{training['recipe']}`) "
            f"on {training['images']:,} images of `{training['data']}`."
        )
        rates = {str(row["tokens"]): row["images_per_second"] for row in rows}
        points = {n: (rates[n], value) for n, value in known.items() if n in rates}
        if len(points) > 1:
            notes = {"one model": [f"{n} tokens" for n in points]}
            report.figure(
                frontier_plot(
                    list(points.values()),
                    x="images/s",
                    y="top-1 accuracy (%)",
                    name="one model",
                    notes=notes,
                ),
                "One model, its budgets: up and right is better",
            )


def _answers(report: Report, config: QuadformerDemoConfig, look: dict[str, Any]) -> None:
    rows = []
    for number, name in enumerate(config.photos):
        words = {n: ", ".join(f"{c} {p:.0%}" for c, p in top[number]) for n, top in _top(look)}
        rows.append({"photograph": name, **{f"{n} tokens": text for n, text in words.items()}})
    report.section("What it says they are").table(
        rows,
        "Most likely classes. The model knows only those that it was trained on, which these "
        "photographs need not show: what counts is whether a budget changes its mind.",
    )


def _top(look: dict[str, Any]) -> list[tuple[str, Any]]:
    """Predictions of the least budget, one in the middle, and the full grid."""
    items = list(look["top"].items())
    return [items[i] for i in sorted({0, len(items) // 2, len(items) - 1})]
