"""A tiny parent with a folder of images, and quick settings."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_images import CLASSES, VIT, make_folder

from adaptive.quadformer.models import build_model, save_trained
from adaptive.quadformer.settings import ModelConfig


def make_parent(directory: Path, **settings) -> Path:
    """A checkpoint of a ViT with random weights that all matter."""
    config = ModelConfig(**{**VIT, "max_patch": 32, "prior": "gain", **settings})
    torch.manual_seed(0)
    model = build_model(config, len(CLASSES))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    save_trained(directory, config, CLASSES, {"model": model})
    return directory


def make_inputs(home: Path) -> list[str]:
    """Overrides that name a parent and images, which are made."""
    make_folder(home / "train", each=16)
    make_folder(home / "valid", each=4)
    return [
        f"checkpoint={make_parent(home / 'parent')}",
        f"data.root={home}",
        "data.train=train",
        "data.valid=valid",
        "device=cpu",
    ]


QUICK = [
    "num_tokens=[7,10]",
    "space.multiple=8",
    "library.images=16",
    "library.steps=4",
    "library.batch=8",
    "library.held_out=6",
    "score.images=12",
    "score.batch=12",
    "cost.seconds=1",
    "search.tighten=0",
    "search.gap=0",
    "gkd.epochs=1",
    "gkd.batch=16",
    "gkd.warmup_epochs=0",
    "evaluate.seconds=0.5",
    "evaluate.speed_batch=2",
    "budget.latency=0.7x",
]
