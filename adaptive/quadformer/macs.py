"""Multiply-accumulates of ViTs, counted by hand from their layers.

One image; matrix products alone (linear layers, patch embedding, attention), as is usual: no
norms, activations, softmax or positions, and not the prior, whose cost is measured. Twice as many
are FLOPs as ``torch.utils.flop_counter`` counts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from adaptive.core.errors import UserError
from adaptive.quadformer.attention import EXTRA, TokenAttention
from adaptive.quadformer.slim import SlimBlock
from adaptive.quadformer.trunk import pools_prefix

if TYPE_CHECKING:
    from adaptive.quadformer.model import Quadformer


def quadformer_macs(model: Quadformer, num_tokens: int) -> int:
    """For so many patches: embedding, detail branch, blocks and head."""
    geometry, vit = model.geometry, model.vit
    coarse = num_tokens < geometry.cells
    extra = EXTRA if coarse and model.area_attention else 0
    total = embedding_macs(vit, num_tokens) + head_macs(vit, num_tokens)
    total += sum(block_macs(vit, block, num_tokens, extra=extra) for block in vit.blocks)
    if coarse and model.tokenizer.detail is not None:
        # A convolution reads each node that has a parent once; the last layer each coarse node.
        products = geometry.nodes - geometry.roots + geometry.splittable
        total += embedding_macs(vit, geometry.cells) + products * vit.embed_dim**2
    return total


def embedding_macs(vit: Any, patches: int) -> int:
    """The patch embedding."""
    return patches * vit.patch_embed.proj.weight.numel()


def block_macs(
    vit: Any, block: Any, patches: int, ffn_patches: int | None = None, extra: int = 0
) -> int:
    """One block.

    Args:
        vit: that the block is of.
        block: whose attention is replaced.
        patches: that attention sees, besides prefix tokens.
        ffn_patches: that the FFN sees, where tokens are merged before it.
        extra: channels by which heads are widened.

    Raises:
        UserError: attention of an unknown kind.
    """
    attention = getattr(block, "attn", None)
    if attention is None and isinstance(block, SlimBlock):
        return (patches + vit.num_prefix_tokens) * _linear(block)
    if not isinstance(attention, TokenAttention):
        raise UserError(
            f"gmacs counts timm's Attention, AttentionRope and EvaAttention, and a block of "
            f"{type(vit).__name__} has another: measure it with torch.utils.flop_counter"
        )
    tokens = patches + vit.num_prefix_tokens
    ffn_tokens = tokens if ffn_patches is None else ffn_patches + vit.num_prefix_tokens
    inside = _linear(attention)
    products = 2 * tokens**2 * attention.num_heads * (attention.head_dim + extra)
    return tokens * inside + ffn_tokens * (_linear(block) - inside) + products


def head_macs(vit: Any, patches: int) -> int:
    """The classifier, and pooling by attention where it is what pools."""
    heads = vit.get_classifier()
    linear = heads if isinstance(heads, tuple) else (heads,)
    total = sum(layer.weight.numel() for layer in linear if isinstance(layer, nn.Linear))
    pool = getattr(vit, "attn_pool", None)
    if pool is not None:
        total += _linear(pool) - _linear(pool.kv)
        seen = patches + vit.num_prefix_tokens * pools_prefix(vit)
        total += seen * (pool.kv.weight.numel() + 2 * pool.kv.weight.shape[1])
    return total


def _linear(module: nn.Module) -> int:
    """Multiply-accumulates of a module's linear layers for a token."""
    layers = (layer for layer in module.modules() if isinstance(layer, nn.Linear))
    return sum(layer.weight.numel() for layer in layers)
