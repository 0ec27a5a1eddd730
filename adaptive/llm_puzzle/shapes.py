"""The cost shapes of a Puzzle model: what `core.cost` prices."""

from __future__ import annotations

from collections.abc import Sequence

from adaptive.core.cost import FFN, Attention, Block, Linear, NoOp, Stack, decoder
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""PyTorch's names of dtypes to those of `core.cost`."""


def shape(config: PuzzleModelConfig, option: AttentionOption | FFNOption) -> Block:
    """The priced shape of one sub-block of a model."""
    if option.kind == "no_op":
        return NoOp()
    if option.kind == "linear":
        return Linear(config.hidden_size, config.hidden_size)
    if isinstance(option, FFNOption):
        return FFN(config.hidden_size, option.width, bias=config.mlp_bias)
    return Attention(
        config.hidden_size,
        config.num_attention_heads,
        option.kv_heads,
        config.head_dim,
        bias=config.qkv_bias,
        out_bias=config.o_bias,
        qk_norm=config.qk_norm,
        window=option.window or 0,
    )


def stack(config: PuzzleModelConfig, blocks: Sequence[BlockOption] | None = None) -> Stack:
    """The whole model, with its own blocks or others."""
    if blocks is None:
        blocks = [BlockOption.from_config(entry) for entry in config.blocks]
    layers = [(shape(config, block.attention), shape(config, block.ffn)) for block in blocks]
    return decoder(
        config.hidden_size, config.vocab_size, layers, tied=bool(config.tie_word_embeddings)
    )
