"""A training of a ViT of two layers that takes a second, with everything random that there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny_images import VIT, make_images

from adaptive.core.run import Ranks
from adaptive.quadformer.data import Batch
from adaptive.quadformer.models import build_model
from adaptive.quadformer.settings import AugmentConfig, ModelConfig, TrainConfig
from adaptive.quadformer.train import Recipe, Trainer

KINDS = {
    "quadformer": ModelConfig(**VIT, drop_path=0.2),
    "detail": ModelConfig(
        **VIT, drop_path=0.2, prior="early", detail=True, scale_embedding=True, area_attention=True
    ),
    "uniform": ModelConfig(**VIT, drop_path=0.2, kind="uniform"),
    "tome": ModelConfig(**VIT, drop_path=0.2, kind="tome"),
    "entropy": ModelConfig(**VIT, drop_path=0.2, kind="entropy"),
}
"""Settings of every kind of model that is trained, and of a Quadformer with all its parts."""
AUGMENT = AugmentConfig(three=0.5, jitter=0.2, erase=0.2, mixup=0.2, cutmix=1.0)
BUDGETS = [7, 10, 16]  # 16 is the full grid
TRAIN = TrainConfig(
    epochs=3,
    batch=8,
    num_tokens=BUDGETS,
    warmup_epochs=1,
    ema=0.9,
    checkpoint_seconds=0,
    validate_epochs=2,
)


def make_trainer(
    work: Path, kind: str = "quadformer", maps: bool = False, augment: Any = AUGMENT, **changes: Any
) -> Trainer:
    """A trainer on 24 images; ``changes`` are of ``Trainer`` or of ``TrainConfig``."""
    names = ("ranks", "teacher", "log", "on_epoch")
    of_trainer = {name: changes.pop(name) for name in names if name in changes}
    seed, device = changes.pop("seed", 0), changes.pop("device", "cpu")
    of_trainer.setdefault("ranks", Ranks(device=device))
    recipe = Recipe(KINDS[kind], augment, replace(TRAIN, **changes), seed)
    torch.manual_seed(seed)
    model = build_model(KINDS[kind], 3).to(device)
    return Trainer(model, make_images(24, maps, device), recipe, work, **of_trainer)


def batch_of(trainer: Trainer, step: int = 0) -> Batch:
    """What a trainer reads for a step."""
    return next(iter(trainer.batches.read(trainer.images, [step])))[1]


def asked_of(model: torch.nn.Module) -> list[dict[str, Any]]:
    """What every call of a model from now on says besides the images."""
    calls: list[dict[str, Any]] = []
    model.register_forward_pre_hook(lambda _, __, given: calls.append(given), with_kwargs=True)
    return calls


def weights_of(trainer: Trainer) -> torch.Tensor:
    """All weights of the model and of its average."""
    states = [model.state_dict() for model in trainer.models.values()]
    return torch.cat([value.flatten() for state in states for value in state.values()])
