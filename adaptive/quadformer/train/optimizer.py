"""AdamW over a model's weights, and its rate at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adaptive.core.training import warmup_cosine
from adaptive.quadformer.settings import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig, fused: bool) -> torch.optim.AdamW:
    """AdamW; vectors, position tables and class tokens have no weight decay.

    Args:
        model: with its ViT as ``vit``; what a wrapper adds to that has the full rate.
        config: rate, weight decay and layer decay.
        fused: one kernel for all weights; on a GPU.
    """
    from timm.optim import param_groups_layer_decay, param_groups_weight_decay

    vit: Any = model.vit
    plain = getattr(vit, "no_weight_decay", set)()
    decay = config.weight_decay
    if config.layer_decay is None:
        groups = param_groups_weight_decay(vit, decay, no_weight_decay_list=plain)
    else:
        groups = param_groups_layer_decay(
            vit, decay, no_weight_decay_list=plain, layer_decay=config.layer_decay
        )
    of_vit = {id(weight) for weight in vit.parameters()}
    rest = [w for w in model.parameters() if id(w) not in of_vit and w.requires_grad]
    groups += [
        {"params": [w for w in rest if w.ndim > 1], "weight_decay": decay},
        {"params": [w for w in rest if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, fused=fused)


def learning_rate(step: int, steps: int, per_epoch: int, config: TrainConfig) -> float:
    """The rate at a step, from 0: a linear rise, then half a cosine."""
    warmup = config.warmup_epochs * per_epoch
    return warmup_cosine(step, steps, warmup, config.lr, config.lr_end)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate, with each group's own factor where layers differ."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
