"""Checkpoints of a training run: one safetensors file, replaced atomically."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn


def save_checkpoint(
    path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], about: dict[str, Any]
) -> None:
    """Writes parameters, optimiser state and ``about`` (numbers and strings)."""
    from safetensors.torch import save_file

    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    for o, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{o}.{index}.{key}": value for key, value in state.items()}
    tensors = {name: value.contiguous().cpu() for name, value in tensors.items()}
    partial = path.with_name(f".{path.name}.partial")
    save_file(tensors, partial, metadata={key: repr(value) for key, value in about.items()})
    os.replace(partial, path)


def load_checkpoint(
    path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> dict[str, str]:
    """Restores what ``save_checkpoint`` wrote, in place.

    Returns:
        ``about``, its values as ``repr`` strings.
    """
    from safetensors import safe_open

    states: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in optimizers]
    with safe_open(path, "pt") as file:
        about = file.metadata()
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(file.get_tensor(f"model.{name}"))
        for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            if key.startswith("optimizer."):
                _, o, index, name = key.split(".")
                states[int(o)].setdefault(int(index), {})[name] = file.get_tensor(key)
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return about
