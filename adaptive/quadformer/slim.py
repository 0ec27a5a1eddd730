"""ViT blocks of which heads, channels of the MLP, or a whole half are gone.

A block keeps the names of its parameters, so a checkpoint of the whole ViT and one of a slim one
differ in shapes and in what is missing alone.

Shapes: B images, L tokens, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.quadformer.attention import TokenAttention


class SlimBlock(nn.Module):
    """A pre-norm block that computes what the two halves it is given do; each may be absent.

    Args:
        block: of a wrapped timm ViT, or a slim one; norms, layer scales and drop paths are its own.
        attn: in place of the block's attention; None: the half is gone, with its norm.
        mlp: in place of the block's MLP; likewise.
    """

    norm1: Any
    ls1: Any
    drop_path1: Any
    norm2: Any
    ls2: Any
    drop_path2: Any

    def __init__(self, block: Any, attn: nn.Module | None, mlp: nn.Module | None):
        super().__init__()
        self.attn: Any = attn
        self.mlp: Any = mlp
        for number, half in ((1, attn), (2, mlp)):
            for name in ("norm", "ls", "drop_path"):
                own = getattr(block, f"{name}{number}") if half is not None else None
                setattr(self, f"{name}{number}", own)
        self.train(block.training)

    def forward(self, x_BLD: Tensor, **extras: Any) -> Tensor:
        """As timm's block, with what its attention is told of the tokens."""
        return self.feed(self.attend(x_BLD, **extras))

    def attend(self, x_BLD: Tensor, **extras: Any) -> Tensor:
        """The first half, with its residual."""
        if self.attn is None:
            return x_BLD
        return x_BLD + self.drop_path1(self.ls1(self.attn(self.norm1(x_BLD), **extras)))

    def feed(self, x_BLD: Tensor) -> Tensor:
        """The second half, with its residual."""
        if self.mlp is None:
            return x_BLD
        return x_BLD + self.drop_path2(self.ls2(self.mlp(self.norm2(x_BLD))))

    @property
    def size(self) -> list[int]:
        """Heads and width of the MLP, 0 where the half is gone."""
        heads = 0 if self.attn is None else self.attn.num_heads
        return [heads, 0 if self.mlp is None else self.mlp.fc1.out_features]


def check_plain(vit: Any) -> None:
    """Refuses ViTs whose blocks cannot be made slim.

    Raises:
        UserError: says what is in the way.
    """
    for index, block in enumerate(vit.blocks):
        if isinstance(block, SlimBlock):
            continue
        attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
        plain = (
            isinstance(block, Block)
            and isinstance(attention, TokenAttention)
            and attention.qkv is not None
            and attention.num_kv_heads == attention.num_heads
            and isinstance(getattr(attention, "norm", None), nn.Identity | None)
            and isinstance(mlp, Mlp)
            and isinstance(mlp.fc1, nn.Linear)
            and isinstance(mlp.norm, nn.Identity)
        )
        if not plain:
            raise UserError(
                f"block {index} of {type(vit).__name__} cannot be made narrower: choose a ViT with "
                "timm's plain Block, fused attention and an MLP of two layers, such as vit_small_* "
                "or deit3_*"
            )


def slim_blocks(vit: Any) -> list[SlimBlock]:
    """Turns every block of a wrapped ViT into a slim one that computes the same, in place.

    Raises:
        UserError: see :func:`check_plain`.
    """
    check_plain(vit)
    for index, block in enumerate(vit.blocks):
        if not isinstance(block, SlimBlock):
            vit.blocks[index] = SlimBlock(block, block.attn, block.mlp)
    return list(vit.blocks)


def cut(vit: Any, sizes: Sequence[Sequence[int]]) -> None:
    """Gives every block so many heads and channels, the first of those that it has, in place.

    Which ones matters to nobody who loads other weights or trains from scratch.

    Args:
        vit: wrapped.
        sizes: heads and width of the MLP of each block; 0: the half is gone.

    Raises:
        UserError: sizes of another ViT, or see :func:`check_plain`.
    """
    blocks = slim_blocks(vit)
    if len(sizes) != len(blocks):
        raise UserError(f"model.blocks names {len(sizes)} blocks, and the ViT has {len(blocks)}")
    for index, (block, wanted) in enumerate(zip(blocks, sizes, strict=True)):
        most = block.size
        if len(wanted) != 2 or not all(0 <= n <= m for n, m in zip(wanted, most, strict=True)):
            raise UserError(
                f"model.blocks: {list(wanted)} of block {index} must be heads up to {most[0]} and "
                f"a width of the MLP up to {most[1]}; 0 leaves the half out"
            )
        heads, width = wanted
        attn = keep_heads(block.attn, torch.arange(heads)) if heads else None
        mlp = keep_channels(block.mlp, torch.arange(width)) if width else None
        vit.blocks[index] = SlimBlock(block, attn, mlp)


@torch.no_grad()
def keep_heads(attention: TokenAttention, keep: Tensor) -> TokenAttention:
    """A copy of an attention with some of its heads, their indices in ``keep``."""
    made = copy.deepcopy(attention)
    channels = head_channels(keep, attention.head_dim)
    width = attention.num_heads * attention.head_dim
    made.qkv = _rows(attention.qkv, torch.cat([channels + i * width for i in range(3)]))
    made.proj = _columns(attention.proj, channels)
    made.num_heads = made.num_kv_heads = len(keep)
    for name in ("q_bias", "k_bias", "v_bias"):
        if (bias := getattr(attention, name, None)) is not None:
            setattr(made, name, _part(bias, channels))
    return made


@torch.no_grad()
def keep_channels(mlp: Any, keep: Tensor) -> nn.Module:
    """A copy of an MLP with some of its hidden channels, their indices in ``keep``."""
    made = copy.deepcopy(mlp)
    made.fc1, made.fc2 = _rows(mlp.fc1, keep), _columns(mlp.fc2, keep)
    return made


def head_channels(keep: Tensor, head_dim: int) -> Tensor:
    """The channels of some heads, as the heads come."""
    return (keep[:, None] * head_dim + torch.arange(head_dim, device=keep.device)).flatten()


def _rows(layer: nn.Linear, keep: Tensor) -> nn.Linear:
    return _linear(layer, layer.weight[keep.to(layer.weight.device)], keep)


def _columns(layer: nn.Linear, keep: Tensor) -> nn.Linear:
    return _linear(layer, layer.weight[:, keep.to(layer.weight.device)], None)


def _linear(layer: nn.Linear, weight: Tensor, bias_rows: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], layer.bias is not None, device="meta")
    made.weight = nn.Parameter(weight.clone(), layer.weight.requires_grad)
    if layer.bias is not None:
        rows = slice(None) if bias_rows is None else bias_rows
        made.bias = _part(layer.bias, rows)
    return made.train(layer.training)


def _part(parameter: nn.Parameter, keep: Tensor | slice) -> nn.Parameter:
    keep = keep.to(parameter.device) if isinstance(keep, Tensor) else keep
    return nn.Parameter(parameter[keep].clone(), parameter.requires_grad)
