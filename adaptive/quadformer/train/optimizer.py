"""AdamW over a model's weights, and its rate at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adaptive.core.training import warmup_cosine
from adaptive.quadformer.settings import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig, fused: bool) -> torch.optim.AdamW:
    """AdamW; vectors and what the model's ``no_weight_decay`` names have no weight decay.

    Args:
        model: a wrapper of a ViT; what it adds to that has the full rate.
        config: rate, weight decay and layer decay.
        fused: one kernel for all weights; on a GPU.
    """
    from timm.optim import param_groups_layer_decay, param_groups_weight_decay

    wrapper: Any = model
    vit, spared = wrapper.vit, wrapper.no_weight_decay()
    plain = {name.removeprefix("vit.") for name in spared}
    decay = config.weight_decay
    if config.layer_decay is None:
        groups = param_groups_weight_decay(vit, decay, no_weight_decay_list=plain)
    else:
        groups = param_groups_layer_decay(
            vit, decay, no_weight_decay_list=plain, layer_decay=config.layer_decay
        )
    rest: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, weight in model.named_parameters():
        if not name.startswith("vit.") and weight.requires_grad:
            rest[weight.ndim > 1 and name not in spared].append(weight)
    groups += [
        {"params": rest[True], "weight_decay": decay},
        {"params": rest[False], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=config.learning_rate, fused=fused
    )


def learning_rate(step: int, steps: int, per_epoch: int, config: TrainConfig) -> float:
    """The rate at a step, from 0: a linear rise, then half a cosine."""
    warmup = config.warmup_epochs * per_epoch
    return warmup_cosine(step, steps, warmup, config.learning_rate, config.learning_rate_end)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate, with each group's own factor where layers differ."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
