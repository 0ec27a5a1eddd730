"""The stages of a ``quadformer_eval`` run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptive.core.prior import prior_identity
from adaptive.core.run import StageContext, atomic_write_json
from adaptive.quadformer.config import PHOTOS, SAME, QuadformerEvalConfig
from adaptive.quadformer.data import ImageSet, load_images
from adaptive.quadformer.evaluate.accuracy import accuracy
from adaptive.quadformer.evaluate.speed import FULL, measure_speed
from adaptive.quadformer.models import (
    Normalise,
    Trained,
    build_model,
    check_there,
    load_trained,
    weight_files,
)

CLASSES = 1000  # of a model without a checkpoint, as timm's weights have


def measured_model(config: QuadformerEvalConfig) -> Trained:
    """The Quadformer that is measured, on the CPU.

    Raises:
        UserError: there is none, or it is a baseline's.
    """
    if config.checkpoint is not None:
        # A vanilla ViT's weights, trained as the baseline "uniform", may be given too.
        return load_trained(
            config.checkpoint, config.evaluate.weights, kind="quadformer", prior=config.prior
        )
    described = replace(
        config.model, kind="quadformer", prior=config.prior or config.model.prior, settings={}
    )
    names = [str(number) for number in range(CLASSES)]
    return Trained(build_model(described, CLASSES).eval(), described, names)


def baseline_model(config: QuadformerEvalConfig, name: str) -> nn.Module:
    """A baseline on weights of its own, or on those of the model, on the CPU."""
    directory = config.baselines[name]
    directory = config.checkpoint if directory == SAME else directory
    if directory is not None:
        return load_trained(directory, config.evaluate.weights, kind=name).model
    return build_model(replace(config.model, kind=name, settings={}), CLASSES).eval()


def identity(config: QuadformerEvalConfig) -> list[Any]:
    """What decides the models: settings, and the weights that directories hold.

    Raises:
        UserError: a directory holds no trained model.
    """
    names = {config.checkpoint, *config.baselines.values()} - {None, SAME}
    for name in sorted(map(str, names)):
        check_there(name)
    files = weight_files(sorted(map(str, names)))
    # A checkpoint has the weights of the prior that it was trained with.
    prior = config.prior or (config.model.prior if config.checkpoint is None else None)
    made_of = [config.checkpoint, config.model, config.prior, prior_identity(prior)]
    return [*made_of, config.baselines, files]


def choose_tokens(config: QuadformerEvalConfig, context: StageContext) -> None:
    """The number of tokens, from the settings or from what a latency buys on this device."""
    found: dict[str, Any] = {"tokens": config.num_tokens}
    if config.budget.latency is not None:
        from adaptive.quadformer.latency import tokens_for

        model: Any = measured_model(config).model.to(context.device)
        settings = config.evaluate
        choice = tokens_for(
            model, config.budget.latency, batch=settings.speed_batch, config=settings
        )
        found = asdict(choice)
        context.summary({"latency.limit": choice.limit, "latency.predicted": choice.predicted})
    atomic_write_json(context.dir / "tokens.json", found)
    context.summary({"tokens": found["tokens"]})


def measure_accuracy(config: QuadformerEvalConfig, context: StageContext) -> None:
    """Accuracy of the model and of every baseline at the number of tokens."""
    context.summary({"accuracy": None})
    if config.data.valid is None:
        atomic_write_json(context.dir / "accuracy.json", {})
        if config.checkpoint is not None:  # what random weights answer says nothing
            _measure_agreement(config, context)
        return
    trained = measured_model(config)
    images = load_images(
        config.data,
        "valid",
        trained.config.size,
        context.device,
        classes=trained.classes,
        track=lambda items, total: context.track(items, total, "decode", "image"),
    )
    found = {"": _accuracy(config, context, "model", trained.model, images)}
    for name in config.baselines:
        model = baseline_model(config, name)
        found[f"baseline.{name}."] = _accuracy(config, context, name, model, images)
    atomic_write_json(context.dir / "accuracy.json", found)
    context.summary({f"{prefix}accuracy": value for prefix, value in found.items()})
    _draw(config, context, trained, images)


def _measure_agreement(config: QuadformerEvalConfig, context: StageContext) -> None:
    """In the place of accuracy, where no labels are given: how often the model answers as at its
    full grid, on views of scikit-image's photographs; and of the baselines likewise."""
    from adaptive.quadformer.evaluate.agreement import agreement, answers, photo_views

    trained = measured_model(config)
    tokens = read_stage(context.input("tokens"), "tokens")["tokens"]
    view_V3SS = photo_views(PHOTOS, trained.config.size)
    full_V = answers(
        trained.model.to(context.device), view_V3SS, trained.config.full_grid, context.device
    )
    models = {"": trained.model}
    models |= {f"baseline.{name}.": baseline_model(config, name) for name in config.baselines}
    found = {}
    for prefix, model in context.track(models.items(), desc="agreement", unit="model"):
        answer_V = answers(model.to(context.device), view_V3SS, tokens, context.device)
        found[prefix] = agreement(answer_V, full_V)
    atomic_write_json(context.dir / "agreement.json", found)
    context.summary({f"{prefix}agreement": value for prefix, value in found.items()})
    context.summary({"agreement.views": len(view_V3SS)})


def measure(config: QuadformerEvalConfig, context: StageContext) -> None:
    """GMAC and measured images/s, and how much of the FLOPs' promise is kept."""
    trained = measured_model(config)
    model: Any = trained.model.to(context.device)
    spent = read_stage(context.input("tokens"), "tokens")
    tokens = spent["tokens"]
    full = model.gmacs(trained.config.full_grid)
    gmacs = model.gmacs(tokens)
    summary: dict[str, Any] = dict.fromkeys(("images_per_second", "realisation", "tokenizer_share"))
    about: dict[str, Any] = {"gmacs": gmacs, "gmacs_full": full}
    if config.evaluate.speed_batch:
        baselines = {
            name: baseline_model(config, name).to(context.device) for name in config.baselines
        }
        size = trained.config.size
        image_BCHW = torch.rand(config.evaluate.speed_batch, 3, size, size, device=context.device)
        image_BCHW = Normalise.of(model, context.device)(image_BCHW)
        speed = measure_speed(model, image_BCHW, tokens, baselines, config.evaluate)
        rates = speed.images_per_second
        summary["images_per_second"] = rates["model"]
        summary["full_grid.images_per_second"] = rates[FULL]
        summary["realisation"] = speed.speedup / (full / gmacs)
        summary["tokenizer_share"] = speed.tokenizer_share
        summary |= {f"baseline.{name}.images_per_second": rates[name] for name in baselines}
        about |= asdict(speed)
        if "predicted" in spent:
            measured = config.evaluate.speed_batch / rates["model"]
            summary["latency.measured"] = measured
            summary["latency.error"] = spent["predicted"] / measured - 1
    atomic_write_json(context.dir / "speed.json", about)
    context.summary({"gmacs": gmacs, **summary})


def read_stage(directory: Path, name: str) -> dict[str, Any]:
    """What a stage wrote."""
    return json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))


def _accuracy(
    config: QuadformerEvalConfig,
    context: StageContext,
    name: str,
    model: nn.Module,
    images: ImageSet,
) -> float:
    return accuracy(
        model.to(context.device),
        images,
        read_stage(context.input("tokens"), "tokens")["tokens"],
        config.evaluate,
        seed=config.seed,
        track=lambda starts: context.track(starts, desc=f"accuracy of {name}", unit="batch"),
    )


def _draw(
    config: QuadformerEvalConfig, context: StageContext, trained: Trained, images: ImageSet
) -> None:
    """Keeps some images, evenly spread over the set, and the patches that they were given."""
    from safetensors.torch import save_file

    count = min(config.evaluate.pictures, len(images))
    if not count:
        return
    index_B = torch.linspace(0, len(images) - 1, count).long()
    pixel_B3HW, _ = images.batch(index_B)
    model: Any = trained.model
    image_BCHW = Normalise.of(model, context.device)(pixel_B3HW.float() / 255)
    with torch.no_grad():
        tokens = read_stage(context.input("tokens"), "tokens")["tokens"]
        box_BN3 = model.select(image_BCHW, tokens).boxes()
    save_file(
        {"pixel_B3HW": pixel_B3HW.cpu(), "box_BN3": box_BN3.cpu()},
        context.dir / "pictures.safetensors",
    )
