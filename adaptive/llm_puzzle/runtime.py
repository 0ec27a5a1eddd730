"""A Puzzle model's weights in an engine of `core`: the way a server would run it.

Shapes: H hidden size, N query heads, K key-value heads, D head size, I width of an FFN.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN

from adaptive.core.engine import Engine, Rope, gated
from adaptive.core.engine.modules import AttentionModule, FFNModule, LinearModule
from adaptive.llm_puzzle.modeling_puzzle import PuzzleAttention, PuzzleForCausalLM, PuzzleMLP
from adaptive.llm_puzzle.shapes import DTYPES, stack


@torch.no_grad()
def engine_of(model: PuzzleForCausalLM) -> Engine:
    """An engine that computes what the model computes, with a copy of its weights.

    Rotary embeddings whose frequencies depend on the length of the text (``dynamic``,
    ``longrope``) keep those of short texts.
    """
    rotary = model.model.rotary_emb
    rope = Rope(
        model.config.head_dim,
        rotary.inv_freq,  # type: ignore[arg-type]
        float(rotary.attention_scaling),
    )
    dtype = DTYPES[str(model.dtype).removeprefix("torch.")]
    engine = Engine(stack(model.config), dtype, model.device, rope)
    eps, activation = model.config.rms_norm_eps, model.config.hidden_act
    engine.embedding.weight.copy_(model.model.embed_tokens.weight)
    engine.head.matrix.load(model.lm_head.weight)
    _norm(engine.head, model.model.norm, eps)
    modules: Iterator[Any] = iter(engine.blocks)
    for layer in model.model.layers:
        if layer.self_attn is not None:
            module = next(modules)
            _norm(module, layer.input_layernorm, eps)
            if isinstance(layer.self_attn, PuzzleAttention):
                _attention(module, layer.self_attn)
            else:
                _linear(module, layer.self_attn.linear_attn)
        if layer.mlp is not None:
            module = next(modules)
            _norm(module, layer.post_attention_layernorm, eps)
            if isinstance(module, FFNModule):
                _ffn(module, layer.mlp, activation)
            else:
                _linear(module, layer.mlp.linear_mlp)
    return engine


def _norm(module: Any, norm: nn.Module, eps: float) -> None:
    module.norm.weight.copy_(norm.weight)
    module.norm.eps = eps


def _attention(module: AttentionModule, attention: PuzzleAttention) -> None:
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    bias = None
    if module.qkv.bias is not None:
        bias = torch.cat([projection.bias for projection in projections])
    module.qkv.load(torch.cat([projection.weight for projection in projections]), bias)
    module.out.load(attention.o_proj.weight, attention.o_proj.bias)
    if attention.config.qk_norm:
        module.q_norm.copy_(attention.q_norm.weight)
        module.k_norm.copy_(attention.k_norm.weight)


def _ffn(module: FFNModule, mlp: PuzzleMLP, activation: str) -> None:
    bias = None
    if module.up.bias is not None:
        bias = torch.cat([mlp.gate_proj.bias, mlp.up_proj.bias])
    module.up.load(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]), bias)
    module.down.load(mlp.down_proj.weight, mlp.down_proj.bias)
    if activation != "silu":
        module.activation = gated(ACT2FN[activation])


def _linear(module: LinearModule, linear: nn.Linear) -> None:
    module.matrix.load(linear.weight, linear.bias)
