"""Top-1 accuracy on a labelled set.

Shapes: B images, K classes, C channels, H x W pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from adaptive.core.run import Ranks
from adaptive.quadformer.data import ImageSet, shifted, warp
from adaptive.quadformer.models import Normalise
from adaptive.quadformer.settings import EvaluateConfig

Track = Callable[[Iterable[int]], Iterable[int]]


@torch.no_grad()
def accuracy(
    model: nn.Module,
    images: ImageSet,
    num_tokens: int,
    config: EvaluateConfig,
    *,
    ranks: Ranks | None = None,
    seed: int = 0,
    track: Track = lambda x: x,
) -> float:
    """Percentage of images whose most likely class is theirs.

    Args:
        model: on the images' device; left in evaluation mode.
        images: the set; its labels are numbers of the model's classes.
        num_tokens: patches of an image.
        config: batch, precision and shift.
        ranks: processes that share the set; all get the same answer.
        seed: of the shifts, which do not depend on the batch.
        track: progress over the batches.
    """
    ranks = ranks or Ranks(device=str(images.label_N.device))
    device = str(images.label_N.device)
    normalise, right = Normalise.of(model, device), 0
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    theta_N23 = shifted(len(images), config.shift, generator) if config.shift else None
    starts = range(ranks.rank * config.batch, len(images), config.batch * ranks.world)
    for start in track(starts):
        index_B = torch.arange(start, min(start + config.batch, len(images)))
        pixel_B3HW, label_B = images.batch(index_B)
        image_BCHW = pixel_B3HW.float() / 255
        if theta_N23 is not None:
            image_BCHW = warp(image_BCHW, theta_N23[index_B].to(device))
        with autocast(device, config.amp):
            logits_BK = model(normalise(image_BCHW), num_tokens=num_tokens)
        right += int((logits_BK.argmax(1) == label_B).sum())
    return 100 * ranks.sum(right) / len(images)


def autocast(device: str, wanted: bool) -> Any:
    """bfloat16 on a GPU where it is wanted."""
    if wanted and device.startswith("cuda"):
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()
