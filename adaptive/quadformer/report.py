"""The reports of Quadformer's runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptive.core.report import Report, curves_of, curves_plot, frontier_plot
from adaptive.core.report.mosaic import mosaic_plot
from adaptive.core.run import StageContext
from adaptive.quadformer.config import QuadformerEvalConfig, QuadformerTrainConfig
from adaptive.quadformer.evaluate.stages import read_stage

ACCURACY, AGREEMENT = "top-1 accuracy (%)", "answers as at the full grid (%)"


def report_training(context: StageContext, config: QuadformerTrainConfig) -> None:
    """Writes the page of a ``quadformer_train`` run: budgets, curves, configuration."""
    found = read_stage(context.input("export"), "accuracy")["accuracy"]
    history = [r for r in context.run.metrics.records() if r["stage"] == "train"]
    model = config.model
    report = Report(
        config.name, f"{model.kind} of {model.vit}, patches of {model.patch} px at {model.size} px"
    )
    report.section("Accuracy by budget")
    points = [(int(tokens), value) for tokens, value in found.items()]
    report.figure(
        frontier_plot(points, x="tokens", y="top-1 accuracy (%)", name=model.kind),
        f"Top-1 accuracy on the validation set by number of tokens, weights: "
        f"{config.evaluate.weights}",
    )
    report.table([{"tokens": n, "top-1 accuracy (%)": value} for n, value in points])
    report.section("Training")
    images = ("images", config.train.batch)
    losses = curves_of(history, {"loss": "training"})
    report.figure(
        curves_plot(losses, y="loss (nats)", again=images), "Loss on augmented, mixed batches"
    )
    accuracy = curves_of(history, {"accuracy": "{} tokens"}, by="tokens")
    report.figure(
        curves_plot(accuracy, y="top-1 accuracy (%)", again=images),
        "Validation in training, by number of tokens",
    )
    report.provenance(config, context.run.path).save(context.dir / "report.html")


def report_evaluation(context: StageContext, config: QuadformerEvalConfig) -> None:
    """Writes the page of a ``quadformer_eval`` run: accuracy against speed, patches."""
    found, quality = read_stage(context.input("accuracy"), "accuracy"), ACCURACY
    if (context.input("accuracy") / "agreement.json").is_file():  # there are no labels
        found, quality = read_stage(context.input("accuracy"), "agreement"), AGREEMENT
    speed = read_stage(context.input("speed"), "speed")
    rates = speed.get("images_per_second", {})
    spent = read_stage(context.input("tokens"), "tokens")
    tokens = spent["tokens"]
    report = Report(config.name, f"{tokens} tokens, {config.checkpoint or config.model.vit}")
    numbers = {quality: found.get(""), "images/s": rates.get("model")}
    numbers |= {"GMAC": speed["gmacs"]}
    report.numbers({key: value for key, value in numbers.items() if value is not None})
    rows = comparison(config, found, rates, quality)
    points = [(row["images/s"], row[quality]) for row in rows]
    report.section("Accuracy and speed").table(
        rows,
        f"Medians of rounds in turn, {speed['mode']}, batches of {speed['batch']}"
        if rates
        else "Speed was not measured",
    )
    if rates and found:
        figure = frontier_plot(
            points[:1],
            name="quadformer",
            notes={"quadformer": [f"{tokens} tokens, {speed['gmacs']:.3g} GMAC"]},
            x="images/s",
            y=quality,
            others={row["model"]: [p] for row, p in zip(rows[1:], points[1:], strict=True)},
        )
        report.figure(figure, "Accuracy against measured speed: up and right is better")
    if rates:
        promised = speed["gmacs_full"] / speed["gmacs"]
        report.text(
            f"Of {promised:.2f}x fewer FLOPs than the full grid's, {speed['speedup']:.2f}x are "
            f"measured: {speed['speedup'] / promised:.0%}. Prior, selection and embedding take "
            f"{speed['tokenizer_share']:.1%} of the time."
        )
    if "predicted" in spent:
        measured = speed["batch"] / rates["model"]
        report.section("Latency of a batch").table(
            [
                {
                    "allowed (ms)": 1e3 * spent["limit"],
                    "predicted (ms)": 1e3 * spent["predicted"],
                    "measured (ms)": 1e3 * measured,
                    "error (%)": 100 * (spent["predicted"] / measured - 1),
                }
            ],
            f"{config.budget.latency} buys {tokens} tokens at batch {speed['batch']}; prices: "
            f"{spent['source']}",
        )
    pictures = context.input("accuracy") / "pictures.safetensors"
    if pictures.is_file():
        from safetensors.numpy import load_file

        kept = load_file(pictures)
        report.section("Patches").figure(
            mosaic_plot(kept["pixel_B3HW"], kept["box_BN3"]),
            f"Images of the validation set in {tokens} patches, each at the resolution "
            "that the model sees",
        )
    report.provenance(config, context.run.path).save(context.dir / "report.html")


def comparison(
    config: QuadformerEvalConfig,
    found: Mapping[str, float],
    rates: Mapping[str, float],
    quality: str = ACCURACY,
) -> list[dict[str, Any]]:
    """The model and its baselines: name, quality and images/s, None where not measured."""
    rows = [("quadformer", "", "model")]
    rows += [(name, f"baseline.{name}.", name) for name in config.baselines]
    return [
        {"model": title, quality: found.get(key), "images/s": rates.get(name)}
        for title, key, name in rows
    ]
