"""How much device memory an engine needs: weights, KV caches, and what lives while it runs."""

from __future__ import annotations

from adaptive.core.cost.block import Block, activation_dtype, dtype_bytes
from adaptive.core.cost.shapes import FFN, Attention, Embedding, Head
from adaptive.core.cost.stack import Stack
from adaptive.core.workload import Workload


def cache_capacity(workload: Workload, stride: int = 1) -> int:
    """Tokens for which a generation's caches have room; the last one is never read again."""
    tokens = workload.prompt + max(workload.output - 1, 0)
    return -(-tokens // stride) * stride


def held_bytes(stack: Stack, workload: Workload, dtype: str, stride: int = 1) -> float:
    """Weights and KV caches in bytes.

    Engines keep the whole of a layer's text, sliding window or not.

    Args:
        stack: the model.
        workload: batch and lengths.
        dtype: of the weights.
        stride: caches hold a multiple of so many tokens.
    """
    capacity = cache_capacity(workload, stride)
    tokens = workload.batch * capacity
    cached = sum(block.kv_bytes_per_token(activation_dtype(dtype)) for block in stack.blocks)
    return stack.weight_bytes(dtype) + tokens * cached


def peak_bytes(stack: Stack, workload: Workload, dtype: str, stride: int = 1) -> float:
    """Most bytes that a generation holds at any moment, in the prefill of its prompts.

    Args:
        stack, workload, dtype, stride: as in ``held_bytes``.
    """
    live = max(_live_bytes(block, workload.batch, workload.prompt, dtype) for block in stack.blocks)
    return held_bytes(stack, workload, dtype, stride) + live


def _live_bytes(block: Block, batch: int, length: int, dtype: str) -> float:
    """Bytes alive at the worst moment inside a block's prefill, its inputs included."""
    wide = dtype_bytes(activation_dtype(dtype))
    narrow = min(dtype_bytes(dtype), wide)  # of what enters a matrix product
    tokens = batch * length
    if isinstance(block, Head):
        return block.computed_tokens(batch, length) * block.vocab * wide + 2 * tokens * (
            block.hidden * wide
        )
    if isinstance(block, Embedding):
        return tokens * block.hidden * wide
    # The residual stream and what is added to it, before and after the norm; the norm's output.
    stream = 3 * wide + narrow
    if isinstance(block, FFN):
        # Both halves of the wide product while their product is made.
        inner = (1 + block.gated) * block.intermediate * wide + block.intermediate * narrow
        return tokens * (block.hidden * stream + inner)
    if isinstance(block, Attention):
        # The projections, rotated queries and keys, and the heads' outputs.
        inner = 3 * block.q_width + 3 * block.kv_width
        return tokens * (block.hidden * stream + inner * wide)
    return tokens * block.io_width() * 2 * wide
