"""The report of a ``train_parent`` run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from adaptive.core.report import Report, curves_plot
from adaptive.core.run import to_plain
from adaptive.llm_puzzle.pretrain.card import validation_rows
from adaptive.llm_puzzle.pretrain.config import TrainParentConfig


def write_report(
    path: Path,
    config: TrainParentConfig,
    result: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Writes the page.

    Args:
        path: the HTML file.
        config: of the run.
        result: what ``export_parent`` returned.
        history: records of ``metrics.jsonl`` of the stage ``train``.
    """
    size = f"{result['parameters']:,} parameters, {result['bytes'] / 1e6:.2f} MB"
    report = Report(config.name, f"a Llama of {size} ({result['dtype']}), trained from scratch")
    report.table(validation_rows(result), "Loss of the rounded weights, computed in float32")
    curves = loss_curves(history)
    if curves:
        figure = curves_plot(curves, x="step", y="loss (nats/token)")
        report.figure(figure, "Losses in training; validation on the first documents of each set")
    report.section("What it writes from BOS alone, at temperature 0.8")
    for number, sample in enumerate(result["samples"], 1):
        report.code(f"Sample {number}", sample.strip())
    plain = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    report.section("Configuration").code("config.yaml", plain)
    report.save(path)


def loss_curves(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Name of each loss to its (step, value) pairs; what was never logged is left out."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in history:
        for key, value in record.items():
            if key == "loss" or key.startswith("valid."):
                name = "training" if key == "loss" else key.replace("valid.", "validation: ")
                curves.setdefault(name, []).append((record["step"], value))
    return curves
