"""The page of a ``textscale_eval`` run."""

from __future__ import annotations

from adaptive.core.report import Report, frontier_plot
from adaptive.core.run import StageContext
from adaptive.textscale.compare.stages import read_tables
from adaptive.textscale.config import TextEvalConfig


def report_comparison(config: TextEvalConfig, context: StageContext) -> None:
    """Writes ``report.html``."""
    table = read_tables(context, "single", "others", "second")
    own = table["adaptive"]
    report = Report("TextScale", f"{config.data.images}, budget {_budget(config)}")
    report.numbers({"F (%)": 100 * own["f"], "megapixels an image": own["megapixels"]})
    rows = [
        {
            "method": name,
            "F (%)": 100 * row["f"],
            "precision (%)": 100 * row["precision"],
            "recall (%)": 100 * row["recall"],
            "megapixels": row["megapixels"],
            "ms": row["ms_per_image"],
        }
        for name, row in sorted(table.items(), key=lambda item: item[1]["megapixels"])
    ]
    report.section("Methods").table(
        rows, "Pixels of all inputs of the networks with padding; median wall time of an image"
    )
    singles = [row for name, row in table.items() if name.startswith("single_")]
    others = {
        name: [(row["megapixels"], 100 * row["f"])]
        for name, row in table.items()
        if name != "adaptive" and not name.startswith("single_")
    }
    if singles:
        others["single scale"] = [(row["megapixels"], 100 * row["f"]) for row in singles]
    figure = frontier_plot(
        [(own["megapixels"], 100 * own["f"])], x="megapixels an image", y="F (%)", others=others
    )
    report.figure(figure, "F against pixels: up and left is better")
    report.provenance(config, context.run.path).save(context.dir / "report.html")


def _budget(config: TextEvalConfig) -> str:
    limits = {k: v for k, v in config.budget.limits().items() if v is not None}
    return ", ".join(f"{name} {value}" for name, value in limits.items()) or "none"
