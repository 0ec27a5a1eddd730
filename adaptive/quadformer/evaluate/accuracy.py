"""Top-1 accuracy on a labelled set.

Shapes: B images, K classes, C channels, H x W pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.run import Ranks
from adaptive.core.solvers.quadtree import batch_leaves
from adaptive.quadformer.data import ImageSet, shifted, warp
from adaptive.quadformer.model import Quadformer
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
        num_tokens: patches of an image, on average where images share them.
        config: batch, precision, shift, and whether the images of a batch share tokens.
        ranks: processes that share the set; all get the same answer.
        seed: of the shifts, which do not depend on the batch, and of the batches that share.
        track: progress over the batches.

    Raises:
        UserError: tokens are to be shared by a model that has no prior.
    """
    ranks = ranks or Ranks(device=str(images.label_N.device))
    device = str(images.label_N.device)
    normalise, right = Normalise.of(model, device), 0
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    theta_N23 = shifted(len(images), config.shift, generator) if config.shift else None
    order_N = torch.arange(len(images))
    if config.shared:  # sets are sorted by class, and batches should be of all sorts
        order_N = torch.randperm(len(images), generator=generator)
    starts = range(ranks.rank * config.batch, len(images), config.batch * ranks.world)
    for start in track(starts):
        index_B = order_N[start : start + config.batch]
        pixel_B3HW, label_B = images.batch(index_B)
        image_BCHW = pixel_B3HW.float() / 255
        if theta_N23 is not None:
            image_BCHW = warp(image_BCHW, theta_N23[index_B].to(device))
        with autocast(device, config.amp):
            logits_BK = _logits(model, normalise(image_BCHW), num_tokens, config)
        right += int((logits_BK.argmax(1) == label_B).sum())
    return 100 * ranks.sum(right) / len(images)


def _logits(
    model: nn.Module, image_BCHW: Tensor, num_tokens: int, config: EvaluateConfig
) -> Tensor:
    if not config.shared:
        return model(image_BCHW, num_tokens=num_tokens)
    if not isinstance(model, Quadformer):
        raise UserError(
            f"evaluate.shared=true needs a model with a prior, and {type(model).__name__} has "
            "none: set it to false"
        )
    total = num_tokens * len(image_BCHW)
    leaves = batch_leaves(model.score(image_BCHW, shared=True), model.geometry, total, config.floor)
    return model(image_BCHW, leaves=leaves)


def autocast(device: str, wanted: bool) -> Any:
    """bfloat16 on a GPU where it is wanted."""
    if wanted and device.startswith("cuda"):
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()
