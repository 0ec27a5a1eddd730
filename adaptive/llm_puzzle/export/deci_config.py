"""``config.json`` of a ``nemotron-nas`` (DeciLM) model, to and from this library's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.blocks import NO_ATTENTION, NO_FFN, AttentionOption, BlockOption, FFNOption
from adaptive.llm_puzzle.export.hf import per_layer_config
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig

MODEL_TYPE = "nemotron-nas"
MODULE = "configuration_decilm"

ROUNDED_TO = 256
"""Readers round FFN widths computed from ``ffn_mult`` up to a multiple of this."""


def ffn_mult(width: int, hidden: int) -> float:
    """The multiplier that stands for an FFN width: two thirds of it, times the hidden size."""
    return 3 * width / (2 * hidden)


def width_of(multiplier: float, hidden: int) -> int:
    """The FFN width that readers make of a multiplier."""
    width = int(2 * multiplier * hidden / 3)
    return -(-width // ROUNDED_TO) * ROUNDED_TO


# --- to ---


def to_deci(config: PuzzleModelConfig, dtype: str, strict_ffn: bool = False) -> dict[str, Any]:
    """The content of ``config.json`` for a child that DeciLM can express.

    Args:
        config: of the child.
        dtype: PyTorch's name of the weights' type.
        strict_ffn: leave ``intermediate_size`` out of the FFN entries, for readers that take
            ``ffn_mult`` alone.
    """
    blocks = [BlockOption.from_config(entry) for entry in config.blocks]
    # Configurations have these only where they were given.
    tokens = {name: getattr(config, f"{name}_token_id", None) for name in ("bos", "eos", "pad")}
    rope = dict(config.rope_parameters or {})
    scaled = rope.get("rope_type", "default") != "default"
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    return {
        "architectures": ["DeciLMForCausalLM"],
        "auto_map": {"AutoConfig": f"{MODULE}.DeciLMConfig"},
        "model_type": MODEL_TYPE,
        "attention_bias": config.qkv_bias and config.o_bias,
        "attention_dropout": config.attention_dropout,
        "block_configs": [
            {
                "attention": _attention(block.attention, config.num_attention_heads),
                "ffn": _ffn(block.ffn, config.hidden_size, strict_ffn),
            }
            for block in blocks
        ],
        "bos_token_id": tokens["bos"],
        "dtype": dtype,
        "eos_token_id": tokens["eos"],
        "head_dim": config.head_dim,
        "hidden_act": config.hidden_act,
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": None,
        "max_position_embeddings": config.max_position_embeddings,
        "mlp_bias": config.mlp_bias,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": len(blocks),
        "num_key_value_heads": None,
        "pad_token_id": tokens["pad"],
        "per_layer_config": per_layer_config(blocks),
        "rms_norm_eps": config.rms_norm_eps,
        # transformers 5 reads the last of these three, everything older the first two.
        "rope_theta": rope.get("rope_theta", 10000.0),
        "rope_scaling": scaling if scaled else None,
        "rope_parameters": rope,
        "tie_word_embeddings": bool(getattr(config, "tie_word_embeddings", False)),
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def _attention(option: AttentionOption, heads: int) -> dict[str, Any]:
    return {
        "n_heads_in_group": heads // option.kv_heads if option.kind == "gqa" else None,
        "no_op": option.kind == "no_op",
        "num_sink_tokens": None,
        "replace_with_linear": option.kind == "linear",
        "sparsify": None,
        "unshifted_sink": False,
        "use_prefill_window_in_sink_attention": False,
        "window_length": None,
    }


def _ffn(option: FFNOption, hidden: int, strict: bool) -> dict[str, Any]:
    entry = {
        "ffn_mult": ffn_mult(option.width, hidden) if option.kind == "mlp" else None,
        "no_op": option.kind == "no_op",
        "replace_with_linear": option.kind == "linear",
        "sparsify": None,
    }
    width = {"intermediate_size": option.width if option.kind == "mlp" else None}
    return entry if strict else entry | width


# --- from ---


def from_deci(raw: Mapping[str, Any], where: str) -> PuzzleModelConfig:
    """Reads the content of a ``config.json``, NVIDIA's published ones or our own.

    Args:
        raw: the content.
        where: what messages begin with, such as the setting that names the file.

    Raises:
        UserError: a field is missing or says what this library does not know.
    """
    entries = raw.get("block_configs")
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{where} has no block_configs; take the {MODEL_TYPE} config.json")
    layers = raw.get("num_hidden_layers", len(entries))
    if layers != len(entries):
        raise UserError(f"{where} has num_hidden_layers={layers}, but {len(entries)} block_configs")
    hidden, heads = _size(raw, "hidden_size", where), _size(raw, "num_attention_heads", where)
    blocks = []
    for i, entry in enumerate(entries):
        try:
            attention = _read_attention(entry["attention"], heads)
            blocks.append(BlockOption(attention, _read_ffn(entry["ffn"], hidden)))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{where}, layer {i}: {reason}") from None
    bias = bool(raw.get("attention_bias"))
    return PuzzleModelConfig(
        vocab_size=_size(raw, "vocab_size", where),
        hidden_size=hidden,
        num_attention_heads=heads,
        head_dim=_size(raw, "head_dim", where) if raw.get("head_dim") else hidden // heads,
        hidden_act=raw.get("hidden_act", "silu"),
        max_position_embeddings=_size(raw, "max_position_embeddings", where),
        rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
        rope_parameters=_rope(raw),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=bool(raw.get("mlp_bias")),
        attention_dropout=raw.get("attention_dropout") or 0.0,
        initializer_range=raw.get("initializer_range", 0.02),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings")),
        bos_token_id=raw.get("bos_token_id"),
        eos_token_id=raw.get("eos_token_id"),
        pad_token_id=raw.get("pad_token_id"),
        blocks=[block.to_config() for block in blocks],
    )


def _size(raw: Mapping[str, Any], name: str, where: str) -> int:
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where} has {name}={value!r}; it must be a whole number >= 1")
    return value


def _rope(raw: Mapping[str, Any]) -> dict[str, Any]:
    if raw.get("rope_parameters"):
        return dict(raw["rope_parameters"])
    scaling = dict(raw.get("rope_scaling") or {})
    kind = scaling.pop("type", "default")  # what older files call it
    return {"rope_type": kind, "rope_theta": raw.get("rope_theta", 10000.0)} | scaling


def _read_attention(entry: Mapping[str, Any], heads: int) -> AttentionOption:
    """Raises ValueError for what no sub-block here can do."""
    if entry.get("no_op"):
        return NO_ATTENTION
    if entry.get("replace_with_linear"):
        return AttentionOption("linear")
    for name in ("sparsify", "num_sink_tokens"):
        if entry.get(name):
            raise ValueError(f"attention with {name} is not supported")
    group = entry.get("n_heads_in_group")
    if not isinstance(group, int) or group < 1 or heads % group:
        raise ValueError(f"n_heads_in_group={group} must divide num_attention_heads={heads}")
    return AttentionOption("gqa", heads // group, entry.get("window_length"))


def _read_ffn(entry: Mapping[str, Any], hidden: int) -> FFNOption:
    if entry.get("no_op"):
        return NO_FFN
    if entry.get("replace_with_linear"):
        return FFNOption("linear")
    if entry.get("sparsify"):
        raise ValueError("an FFN with sparsify is not supported")
    if entry.get("intermediate_size"):
        return FFNOption("mlp", entry["intermediate_size"])
    multiplier = entry.get("ffn_mult")
    if not isinstance(multiplier, (int, float)) or multiplier <= 0:
        raise ValueError(f"ffn_mult={multiplier} must be above 0")
    return FFNOption("mlp", width_of(multiplier, hidden))
