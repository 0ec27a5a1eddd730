"""The report of a ``train_parent`` run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptive.core.report import Report, curves_of, curves_plot
from adaptive.llm_puzzle.pretrain.card import validation_rows
from adaptive.llm_puzzle.pretrain.config import TrainParentConfig


def write_report(
    path: Path,
    config: TrainParentConfig,
    result: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    run: Path,
) -> None:
    """Writes the page.

    Args:
        path: the HTML file.
        config: of the run.
        result: what ``export_parent`` returned.
        history: records of ``metrics.jsonl`` of the stage ``train``.
        run: directory of the run.
    """
    size = f"{result['parameters']:,} parameters, {result['bytes'] / 1e6:.2f} MB"
    report = Report(config.name, f"a Llama of {size} ({result['dtype']}), trained from scratch")
    report.table(validation_rows(result), "Loss of the rounded weights, computed in float32")
    curves = loss_curves(history)
    if curves:
        tokens = ("tokens", config.schedule.batch * config.shape.context)
        figure = curves_plot(curves, y="loss (nats/token)", again=tokens)
        report.figure(figure, "Losses in training; validation on the first documents of each set")
    report.section("What it writes from BOS alone, at temperature 0.8")
    for number, sample in enumerate(result["samples"], 1):
        report.code(f"Sample {number}", sample.strip())
    report.provenance(config, run).save(path)


def loss_curves(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Name of each loss to its (step, value) pairs; what was never logged is left out."""
    logged = dict.fromkeys(key for record in history for key in record)
    titles = {key: key.replace("valid.", "validation: ") for key in logged if "valid." in key}
    return curves_of(history, {"loss": "training", **titles})
