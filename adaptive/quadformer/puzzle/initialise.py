"""Variants in closed form: the heads and channels that matter, and the best last matrix for them.

A half of a block ends in a matrix with a bias. Its features are those of the parent for every
size, so one pass of the parent over the images, at random numbers of tokens, serves all variants.

Shapes: M tokens of a batch, F features, H heads, E channels of a head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive.core.blockwise.moments import Moments, MomentSums, contribution, most
from adaptive.quadformer.model import Quadformer
from adaptive.quadformer.puzzle.space import ATTENTION, Group
from adaptive.quadformer.slim import SlimBlock, head_channels, keep_channels, keep_heads


@torch.no_grad()
def block_moments(
    model: Quadformer, batches: Iterable[tuple[Tensor, int]], halves: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], Moments]:
    """Moments of what enters the last matrix of halves against what leaves it.

    The last feature is constant, for the bias.

    Args:
        model: the parent, whose blocks are slim.
        batches: normalised images and their number of tokens.
        halves: block and half.
    """
    layers = {key: _last(model.vit.blocks[key[0]], key[1]) for key in halves}
    sums = {key: MomentSums() for key in layers}
    with _watching(layers, sums):
        for image_BCHW, tokens in batches:
            model(image_BCHW, num_tokens=tokens)
    return {key: found.moments() for key, found in sums.items()}


@torch.no_grad()
def variant(block: SlimBlock, group: Group, size: int, moments: Moments, ridge: float) -> SlimBlock:
    """Half a block of fewer heads or channels, fitted to the parent's output.

    Args:
        block: of the parent.
        group: which half of it.
        size: heads, or the MLP's width.
        moments: of the half, from :func:`block_moments`.
        ridge: see :meth:`Moments.solve`.
    """
    last = _last(block, group.half)
    value_F = contribution(moments.mean_abs_F[:-1], last.weight)
    if group.half == ATTENTION:
        dim = block.attn.head_dim
        heads = most(value_F.unflatten(0, (-1, dim)).sum(1), size)
        kept, features = keep_heads(block.attn, heads), head_channels(heads, dim)
        made = half_of(block, ATTENTION, kept)
    else:
        features = most(value_F, size)
        made = half_of(block, group.half, keep_channels(block.mlp, features))
    fitted = _last(made, group.half)
    constant = features.new_tensor([len(value_F)])
    with_bias = fitted.bias is not None
    keep = torch.cat([features, constant]) if with_bias else features
    weight = moments.solve(ridge, keep)
    if with_bias:
        fitted.bias.copy_(weight[:, -1])
        weight = weight[:, :-1]
    fitted.weight.copy_(weight)
    return made


def half_of(block: SlimBlock, half: str, module: nn.Module) -> SlimBlock:
    """A block of one half alone, with norms and scales of its own that begin as the block's."""
    alone = (module, None) if half == ATTENTION else (None, module)
    return copy.deepcopy(SlimBlock(block, *alone))


def parent_half(block: SlimBlock, group: Group, size: int) -> SlimBlock:
    """Half a block of any size with the first of the parent's heads or channels.

    For what does not depend on the weights: shapes and times.
    """
    keep = torch.arange(size)
    narrow: Any = keep_heads if group.half == ATTENTION else keep_channels
    own = block.attn if group.half == ATTENTION else block.mlp
    return half_of(block, group.half, narrow(own, keep))


def _last(block: SlimBlock, half: str) -> nn.Linear:
    """The matrix that a half ends in."""
    return block.attn.proj if half == ATTENTION else block.mlp.fc2


@contextmanager
def _watching(
    layers: dict[tuple[int, str], nn.Linear], sums: dict[tuple[int, str], MomentSums]
) -> Iterator[None]:
    def watch(key: tuple[int, str]) -> Any:
        def entered(layer: nn.Linear, args: Sequence[Tensor]) -> None:
            f_MF = args[0].flatten(0, -2).float()
            y_MH = F.linear(f_MF, layer.weight, layer.bias)
            sums[key].add(F.pad(f_MF, (0, 1), value=1.0), y_MH)

        return entered

    hooks = [layer.register_forward_pre_hook(watch(key)) for key, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
