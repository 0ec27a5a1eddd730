"""A training of a ViT of two layers that takes a second, with everything random that there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny_images import VIT, WholeImage, make_images

from adaptive.quadformer.models import build_vit
from adaptive.quadformer.settings import AugmentConfig, ModelConfig, TrainConfig
from adaptive.quadformer.train import Recipe, Trainer

MODEL = ModelConfig(**VIT, drop_path=0.2)
AUGMENT = AugmentConfig(three=0.5, jitter=0.2, erase=0.2, mixup=0.2, cutmix=1.0)
TRAIN = TrainConfig(
    epochs=3,
    batch=8,
    num_tokens=[4, 7, 16],
    warmup_epochs=1,
    ema=0.9,
    checkpoint_seconds=0,
    validate_epochs=2,
)


def make_trainer(work: Path, maps: bool = False, augment: Any = AUGMENT, **changes: Any) -> Trainer:
    """A trainer on 24 images; ``changes`` are of ``Trainer`` or of ``TrainConfig``."""
    of_trainer = {
        k: changes.pop(k) for k in ("ranks", "teacher", "log", "on_epoch") if k in changes
    }
    seed = changes.pop("seed", 0)
    recipe = Recipe(MODEL, augment, replace(TRAIN, **changes), seed)
    torch.manual_seed(seed)
    model = WholeImage(build_vit(MODEL, 3))
    return Trainer(model, make_images(24, maps), recipe, work, **of_trainer)


def weights_of(trainer: Trainer) -> torch.Tensor:
    """All weights of the model and of its average."""
    states = [model.state_dict() for model in trainer.models.values()]
    return torch.cat([value.flatten() for state in states for value in state.values()])
