"""One small adapter an architecture: what its configuration says, in this library's terms.

All four architectures give the same names to the same weights, so a parent's safetensors load
into :class:`PuzzleForCausalLM` unchanged and only the configuration has to be translated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PretrainedConfig

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig

ARCHITECTURES: Registry[Callable[[PretrainedConfig], dict[str, Any]]] = Registry("architecture")


@ARCHITECTURES.register("llama")
def llama(config: PretrainedConfig) -> dict[str, Any]:
    bias = config.attention_bias
    return {"qkv_bias": bias, "o_bias": bias, "mlp_bias": config.mlp_bias}


@ARCHITECTURES.register("mistral")
def mistral(config: PretrainedConfig) -> dict[str, Any]:
    return {"windows": [config.sliding_window] * config.num_hidden_layers}


@ARCHITECTURES.register("qwen2")
def qwen2(config: PretrainedConfig) -> dict[str, Any]:
    return {"qkv_bias": True, "windows": _windows_by_type(config)}


@ARCHITECTURES.register("qwen3")
def qwen3(config: PretrainedConfig) -> dict[str, Any]:
    bias = config.attention_bias
    return {
        "qkv_bias": bias,
        "o_bias": bias,
        "qk_norm": True,
        "windows": _windows_by_type(config),
    }


def _windows_by_type(config: PretrainedConfig) -> list[int | None]:
    return [
        config.sliding_window if kind == "sliding_attention" else None
        for kind in config.layer_types
    ]


def translate(config: PretrainedConfig) -> PuzzleModelConfig:
    """The heterogeneous configuration of a homogeneous parent.

    Args:
        config: of any registered architecture, or of a Puzzle child, which is a parent as well.

    Raises:
        UserError: the architecture is not registered.
    """
    if isinstance(config, PuzzleModelConfig):
        return config
    if config.model_type == PuzzleModelConfig.model_type:  # loaded as remote code
        return PuzzleModelConfig(**config.to_dict())
    if config.model_type not in ARCHITECTURES:
        raise UserError(f"parent: {ARCHITECTURES.unknown(config.model_type)}")
    own = ARCHITECTURES[config.model_type](config)
    windows = own.pop("windows", None) or [None] * config.num_hidden_layers
    head_dim = getattr(config, "head_dim", None)
    blocks = [
        {
            "attention": {
                "kind": "gqa",
                "num_key_value_heads": config.num_key_value_heads,
                **({"sliding_window": window} if window else {}),
            },
            "ffn": {"kind": "mlp", "intermediate_size": config.intermediate_size},
        }
        for window in windows
    ]
    return PuzzleModelConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_attention_heads,
        head_dim=head_dim or config.hidden_size // config.num_attention_heads,
        hidden_act=config.hidden_act,
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters=dict(config.rope_parameters),
        attention_dropout=config.attention_dropout or 0.0,
        initializer_range=config.initializer_range,
        tie_word_embeddings=config.tie_word_embeddings,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        blocks=blocks,
        **own,
    )
