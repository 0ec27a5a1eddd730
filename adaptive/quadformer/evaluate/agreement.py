"""What can be judged without labels: whether a budget answers as the full grid does.

Shapes: V views of photographs, B of a batch, S side in pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from adaptive.quadformer.data.photos import photo, views
from adaptive.quadformer.models import Normalise

BATCH = 32  # views at a time


def photo_views(names: tuple[str, ...], size: int) -> UInt8[Tensor, "V 3 S S"]:
    """Views of scikit-image's photographs, at a model's size."""
    return torch.from_numpy(np.concatenate([views(photo(name), size) for name in names]))


@torch.no_grad()
def answers(
    model: Any, pixel_V3SS: UInt8[Tensor, "V 3 S S"], num_tokens: int, device: str
) -> Int[Tensor, " V"]:
    """Number of the most likely class of each view, on the CPU.

    Args:
        model: on the device, in evaluation mode.
        pixel_V3SS: views.
        num_tokens: patches of a view.
        device: of torch.
    """
    normalise = Normalise.of(model, device)
    return torch.cat(
        [
            model(normalise(part_B3SS.to(device).float() / 255), num_tokens=num_tokens)
            .argmax(1)
            .cpu()
            for part_B3SS in pixel_V3SS.split(BATCH)
        ]
    )


def agreement(one_V: Int[Tensor, " V"], other_V: Int[Tensor, " V"]) -> float:
    """Percentage of views that are answered alike."""
    return 100 * float((one_V == other_V).float().mean())
