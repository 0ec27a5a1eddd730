"""Distillation of an oracle into a learned prior.

Shapes: B images, C channels, H and W pixels, h and w of maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.prior.area import area_resize
from adaptive.core.prior.learned import LearnedPrior

Batch = tuple[Tensor, Tensor]


def distill_loss(
    logits_Bhw: Float[Tensor, "B h w"], oracle_BHW: Float[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    """KL divergence of the prior's share of each place from the oracle's, in nats an image.

    Args:
        logits_Bhw: of :meth:`LearnedPrior.logits`.
        oracle_BHW: saliency at any resolution, not negative. An oracle that sees nothing in an
            image holds all places equal.
    """
    target_BP = area_resize(oracle_BHW.float(), *logits_Bhw.shape[1:]).flatten(1)
    total_B1 = target_BP.sum(1, keepdim=True)
    target_BP = torch.where(total_B1 > 0, target_BP / total_B1, 1 / target_BP.shape[1])
    log_share_BP = logits_Bhw.flatten(1).log_softmax(1)
    return torch.nn.functional.kl_div(log_share_BP, target_BP, reduction="batchmean")


def distill_prior(
    prior: LearnedPrior,
    batches: Iterable[Batch],
    *,
    steps: int,
    learning_rate: float = 2e-3,
    log: Callable[..., None] = lambda *_, **__: None,
) -> list[float]:
    """Trains a learned prior in place to give an oracle's maps (AdamW, one cosine to zero).

    Args:
        prior: on the images' device.
        batches: pairs of images [B, 3, H, W] in [0, 1] and the oracle's maps [B, h, w], such as
            those of :func:`grad_cam`; gone through again when they end.
        steps: batches to train on.
        learning_rate: at the start.
        log: called as ``log(step, loss=..., lr=...)``.

    Returns:
        The loss of each step.

    Raises:
        UserError: no steps, or no batches.
    """
    if steps < 1:
        raise UserError(f"steps={steps} must be at least 1")
    prior.requires_grad_(True)
    optimizer = torch.optim.AdamW(prior.parameters(), learning_rate, weight_decay=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    try:
        stream = _repeated(batches)
        for step in range(steps):
            image_BCHW, oracle_BHW = next(stream)
            loss = distill_loss(prior.logits(image_BCHW), oracle_BHW)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            log(step, loss=losses[-1], lr=cosine.get_last_lr()[0])
            cosine.step()
    finally:
        prior.requires_grad_(False)
    return losses


def _repeated(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise UserError(
                "batches ended: give some, and a list or a data loader that can be gone through "
                "more than once"
            )
