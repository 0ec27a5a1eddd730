"""Checkpoints of a training run: one safetensors file, replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptive.core.run.atomic import atomic_path


def save_checkpoint(
    path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], about: dict[str, Any]
) -> None:
    """Writes parameters, optimiser state and ``about`` (plain values, kept as JSON)."""
    from safetensors.torch import save_file

    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    for o, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{o}.{index}.{key}": value for key, value in state.items()}
    tensors = {name: value.contiguous().cpu() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps(about)})


def load_checkpoint(
    path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer] = ()
) -> dict[str, Any]:
    """Restores in place what ``save_checkpoint`` wrote; without optimisers, the model alone.

    Returns:
        ``about``.
    """
    from safetensors import safe_open

    states: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in optimizers]
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(file.get_tensor(f"model.{name}"))
        for key in file.keys() if optimizers else ():
            if key.startswith("optimizer."):
                _, o, index, name = key.split(".")
                states[int(o)].setdefault(int(index), {})[name] = file.get_tensor(key)
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return about
