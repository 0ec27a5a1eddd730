"""The state of a training that was cut short: one safetensors file, replaced in one step.

Batches, augmentation and dropout follow from the seed and the step: no random state is kept.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from adaptive.core.run import atomic_path


def save_checkpoint(
    path: Path,
    step: int,
    models: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    seconds: float,
) -> None:
    """Writes models and optimiser.

    Args:
        path: of the file.
        step: steps that are done.
        models: by a name each, such as the model and its average.
        optimizer: its state is kept, its settings are not.
        seconds: wall time so far.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, model in models.items():
        tensors |= {f"{name}/{key}": value for key, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
    about = json.dumps({"step": step, "seconds": seconds})
    with atomic_path(path) as temporary:
        host = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        save_file(host, temporary, {"about": about})


def load_checkpoint(
    path: Path, models: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Restores in place what :func:`save_checkpoint` wrote.

    Returns:
        Steps that are done, and the wall time that they took.
    """
    from safetensors import safe_open

    states: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
        keys = list(file.keys())
        for name, model in models.items():
            mine = [key for key in keys if key.startswith(f"{name}/")]
            model.load_state_dict({k.removeprefix(f"{name}/"): file.get_tensor(k) for k in mine})
        for key in keys:
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                states.setdefault(int(index), {})[name] = file.get_tensor(key)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    return about["step"], about["seconds"]
