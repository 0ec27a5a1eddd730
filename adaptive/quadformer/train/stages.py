"""The stages of a ``quadformer_train`` run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from adaptive.core.run import Ranks, StageContext, atomic_write_json, say
from adaptive.core.training import record_line
from adaptive.quadformer.config import QuadformerTrainConfig
from adaptive.quadformer.data import ImageSet, load_images
from adaptive.quadformer.evaluate import accuracy
from adaptive.quadformer.models import ACCURACY, build_model, load_trained, save_trained
from adaptive.quadformer.train.recipe import Recipe
from adaptive.quadformer.train.trainer import CHECKPOINT, Trainer


def check(config: QuadformerTrainConfig) -> None:
    """Tells mistakes in the model's settings and its budgets before anything is decoded.

    Raises:
        UserError: timm or the wrapper cannot make the model, or it cannot spend a budget.
    """
    # Without memory for its weights, and whatever chooses the patches.
    described = replace(config.model, init=None, prior="gain")
    with torch.device("meta"):
        model = build_model(described, classes=1)
    _recipe(config).check_budgets(model)


def decode_images(config: QuadformerTrainConfig, context: StageContext) -> None:
    """Decodes both splits into the cache, and writes what is in them."""
    train = _images(config, context, "train", "cpu")
    valid = _images(config, context, "valid", "cpu", train.classes)
    counts = {"train": len(train), "valid": len(valid)}
    atomic_write_json(context.dir / "images.json", {"classes": train.classes, **counts})
    context.summary({f"images.{split}": count for split, count in counts.items()})
    context.summary({"images.classes": len(train.classes)})


def train(config: QuadformerTrainConfig, context: StageContext) -> None:
    """Trains, validates as it goes, and writes the model."""
    device = context.device
    train_set = _images(config, context, "train", device)
    valid_set = _images(config, context, "valid", device, train_set.classes)
    torch.manual_seed(config.seed)  # of the weights, whatever was drawn before
    model = build_model(config.model, len(train_set.classes)).to(device)
    teacher = None
    if config.train.distill.teacher not in (None, "ema"):
        teacher = (
            load_trained(str(config.train.distill.teacher)).model.to(device).requires_grad_(False)
        )

    def log(**record: Any) -> None:
        context.log(**record)
        if context.ranks.main:
            say(f"[train] {record_line(record)}")

    def validate(trainer: Trainer) -> None:
        name, judged = list(trainer.models.items())[-1]
        for tokens in trainer.recipe.budgets:
            found = accuracy(judged, valid_set, tokens, config.evaluate, ranks=context.ranks)
            log(step=trainer.step, tokens=tokens, weights=name, accuracy=found)

    trainer = Trainer(
        model,
        train_set,
        _recipe(config),
        context.dir,
        ranks=context.ranks if context.ranks.world > 1 else Ranks(device=device),
        teacher=teacher,
        log=log,
        on_epoch=validate,
    )
    trainer.run()
    if context.ranks.main:
        save_trained(context.dir, config.model, train_set.classes, trainer.models)
        (context.dir / CHECKPOINT).unlink(missing_ok=True)
    context.summary(
        {
            "train.steps": trainer.steps,
            "train.seconds": trainer.seconds,
            "model.params": sum(weight.numel() for weight in model.parameters()),
        }
    )


def export(config: QuadformerTrainConfig, context: StageContext) -> None:
    """Writes the model as it leaves the run, in half precision, and measures it at every budget.

    What is measured is what was written: the directory can go into the zoo as it is.
    """
    kept = load_trained(context.input("train"), config.evaluate.weights)
    save_trained(context.dir, kept.config, kept.classes, {"model": kept.model}, torch.float16)
    trained = load_trained(context.dir)
    model = trained.model.to(context.device)
    images = _images(config, context, "valid", context.device, trained.classes)
    budgets = config.train.num_tokens or [config.model.full_grid]
    found = {
        str(tokens): accuracy(
            model,
            images,
            tokens,
            config.evaluate,
            track=lambda starts, tokens=tokens: context.track(
                starts, desc=f"{tokens} tokens", unit="batch"
            ),
        )
        for tokens in budgets
    }
    about = {"images": len(images), "data": config.data.valid, "recipe": config.name}
    atomic_write_json(context.dir / ACCURACY, {"accuracy": found, **about})
    context.summary({f"accuracy.{tokens}": value for tokens, value in found.items()})


def _recipe(config: QuadformerTrainConfig) -> Recipe:
    return Recipe(config.model, config.augment, config.train, config.seed)


def _images(
    config: QuadformerTrainConfig,
    context: StageContext,
    split: str,
    device: str,
    classes: list[str] | None = None,
) -> ImageSet:
    return load_images(
        config.data,
        split,
        config.model.size,
        device,
        classes=classes,
        track=lambda items, total: context.track(items, total, f"decode {split}", "image"),
    )
