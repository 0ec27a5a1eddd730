"""Blockwise local distillation (Puzzle, section 3) of all variants of all blocks together.

A variant of one half stands beside the parent's other half, frozen. The block gets what the
parent's block gets and has to reproduce what that makes of it, ``MSE(o, o') / MSE(o, 0)``. No
gradient leaves the block, so one pass of the parent over a batch, at a random number of tokens,
trains everything.

Shapes: B images, C channels, H x W pixels, L tokens, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptive.core.training import Stop, load_checkpoint, save_checkpoint, warmup_cosine
from adaptive.quadformer.evaluate import autocast
from adaptive.quadformer.model import Quadformer
from adaptive.quadformer.puzzle.images import Augmented
from adaptive.quadformer.puzzle.settings import LibraryConfig
from adaptive.quadformer.puzzle.space import ATTENTION, Group
from adaptive.quadformer.puzzle.trace import Trace
from adaptive.quadformer.slim import SlimBlock

CHECKPOINT = "checkpoint.safetensors"

Variants = Mapping[tuple[Group, int], SlimBlock]
"""Blocks of one half alone, by group and size."""


def errors(trace: Trace, variants: Variants) -> dict[tuple[Group, int], Tensor]:
    """Each variant's loss on a traced batch, with gradients to its own weights alone."""
    by_block: dict[int, list[tuple[Group, int]]] = {}
    for group, size in variants:
        by_block.setdefault(group.block, []).append((group, size))
    found = {}
    for index, keys in by_block.items():
        with torch.no_grad():
            mid_BLD = trace.attended(index)
        out_BLD = trace.enters(index + 1)
        energy = out_BLD.float().square().sum()
        for key in keys:
            y_BLD = replaced(trace, key[0], variants[key], mid_BLD)
            found[key] = (y_BLD.float() - out_BLD.float()).square().sum() / energy
    return found


def replaced(trace: Trace, group: Group, half: SlimBlock | None, mid_BLD: Tensor) -> Tensor:
    """Output of a block, one half of which is replaced.

    Args:
        trace: of the parent.
        group: the half.
        half: in its place; None: nothing.
        mid_BLD: what the parent has between the halves.
    """
    if group.half != ATTENTION:
        return mid_BLD if half is None else half.feed(mid_BLD)
    x_BLD, extras = trace.enters(group.block), trace.extras[group.block]
    if half is not None:
        x_BLD = half.attend(x_BLD, **extras)
    return trace.blocks[group.block].feed(x_BLD)


@torch.no_grad()
def held_out_errors(
    model: Quadformer,
    variants: Variants,
    batches: Iterable[Tensor],
    num_tokens: Sequence[int],
    amp: bool,
) -> dict[tuple[Group, int], float]:
    """Mean losses on held-out images at every number of tokens."""
    sums = dict.fromkeys(variants, 0.0)
    count = 0
    for image_BCHW in batches:
        for tokens in num_tokens:
            with autocast(str(image_BCHW.device), amp):
                found = errors(Trace(model, image_BCHW, tokens), variants)
            for key, value in found.items():
                sums[key] += len(image_BCHW) * float(value)
            count += len(image_BCHW)
    return {key: value / count for key, value in sums.items()}


def distil(
    model: Quadformer,
    variants: Variants,
    images: Augmented,
    num_tokens: Sequence[int],
    config: LibraryConfig,
    work: Path,
    *,
    amp: bool,
    track: Callable[[Iterable[int], int], Iterable[int]] = lambda steps, _: steps,
    log: Callable[..., None] = lambda **_: None,
) -> None:
    """Trains variants in place; a training that was killed goes on from its last checkpoint.

    The last one is of the last step, and is left for the caller to unlink once it has saved them.

    Args:
        model: the parent, frozen, in evaluation mode.
        variants: on its device.
        images: to train on.
        num_tokens: one of them is drawn for each step.
        config: steps and rates.
        work: directory of the checkpoint.
        amp: bfloat16 autocast on a GPU.
        track: progress over the steps.
        log: called as ``log(step=..., loss=...)``, the mean over the variants.
    """
    everything: Any = nn.ModuleDict(
        {f"{g.block}-{g.half}-{size}": module for (g, size), module in variants.items()}
    )
    everything.requires_grad_(True)
    # A step's weights on a GPU are hundreds of small tensors: one kernel for all of them.
    optimizer = torch.optim.AdamW(
        everything.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=0.0,
        fused=images.device.startswith("cuda"),
    )
    path, first, before = work / CHECKPOINT, 0, 0.0
    if path.is_file():
        first, before = load_checkpoint(path, {"library": everything}, optimizer)
    begun = saved = time.monotonic()
    every = max(1, config.steps // 50)
    with Stop() as stop:
        for step in track(range(first, config.steps), config.steps - first):
            rate = warmup_cosine(
                step,
                config.steps,
                config.warmup * config.steps,
                config.learning_rate,
                0.1 * config.learning_rate,
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            tokens = images.batches.tokens(step, num_tokens)
            with autocast(images.device, amp):
                with torch.no_grad():
                    trace = Trace(model, images(step), tokens)
                # A variant's own loss is all that reaches it: the sum keeps them apart.
                total = torch.stack(list(errors(trace, variants).values())).sum()
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            if (step + 1) % every == 0:
                log(step=step + 1, tokens=tokens, loss=float(total.detach()) / len(variants))
            stopped, now = stop.asked(), time.monotonic()
            due = now - saved >= config.checkpoint_seconds
            if stopped or due or step + 1 == config.steps:
                done = before + now - begun
                save_checkpoint(path, step + 1, {"library": everything}, optimizer, done)
                saved = time.monotonic()
            if stopped:
                break
    everything.requires_grad_(False)
