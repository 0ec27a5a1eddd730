"""A decoder language model whose layers differ: the model that Puzzle searches, trains and ships.

This one file is the model everywhere. Parents (Llama, Mistral, Qwen2, Qwen3) are loaded into it,
children are built with it, and ``save_pretrained`` copies it beside the weights, so it imports
PyTorch and transformers alone and loads with ``trust_remote_code=True`` where ``adaptive`` is not
installed.

A sub-block that does nothing (``no_op``) holds no parameters, not even its layer norm. Weights
keep Llama's names; a linear sub-block is called as TensorRT-LLM calls it.

Shapes: B batch, T tokens of this call, H hidden size, N query heads, K key-value heads, D head
size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

Rope = tuple[torch.Tensor, torch.Tensor]


def llama() -> Any:
    """The module of transformers' Llama, whose parts are used as they are.

    It needs all of transformers, and this file may be executed when that is half imported: as soon
    as models can be registered. So it is imported where layers are made.
    """
    from transformers.models.llama import modeling_llama

    return modeling_llama


class PuzzleModelConfig(PretrainedConfig):
    """Configuration of a heterogeneous decoder.

    Args:
        blocks: one entry a layer, ``{"attention": A, "ffn": F}``. A is ``{"kind": "gqa",
            "num_key_value_heads": k}`` (optionally with ``"sliding_window": w``), ``{"kind":
            "linear"}`` or ``{"kind": "no_op"}``; F is ``{"kind": "mlp", "intermediate_size": i}``,
            ``{"kind": "linear"}`` or ``{"kind": "no_op"}``.
        qkv_bias, o_bias, mlp_bias, qk_norm: what the parent's architecture adds to Llama's.
        The others mean what they mean in ``LlamaConfig``.
    """

    model_type = "adaptive_puzzle"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size: int = 32000,
        hidden_size: int = 4096,
        num_attention_heads: int = 32,
        head_dim: int | None = None,
        hidden_act: str = "silu",
        max_position_embeddings: int = 4096,
        rms_norm_eps: float = 1e-6,
        rope_parameters: dict[str, Any] | None = None,
        qkv_bias: bool = False,
        o_bias: bool = False,
        mlp_bias: bool = False,
        qk_norm: bool = False,
        attention_dropout: float = 0.0,
        initializer_range: float = 0.02,
        use_cache: bool = True,
        blocks: list[dict[str, dict[str, Any]]] | None = None,
        **kwargs: Any,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_attention_heads = num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.hidden_act = hidden_act
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.rope_parameters = rope_parameters or {"rope_type": "default", "rope_theta": 10000.0}
        self.qkv_bias = qkv_bias
        self.o_bias = o_bias
        self.mlp_bias = mlp_bias
        self.qk_norm = qk_norm
        self.attention_dropout = attention_dropout
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        self.blocks = blocks or []
        self.num_hidden_layers = len(self.blocks)

        # transformers sizes a KV cache from these. Only layers that attend have a slot in it, in
        # their order; slots beyond those are never filled and never allocated.
        windows = [block["attention"].get("sliding_window") for block in self.attending]
        slots = ["sliding_attention" if window else "full_attention" for window in windows]
        padding = slots[-1] if slots else "full_attention"
        self.layer_types = slots + [padding] * (self.num_hidden_layers - len(slots))
        sizes = sorted({window for window in windows if window})
        if len(sizes) > 1:
            raise ValueError(f"sliding windows must be of one size, these blocks have {sizes}")
        self.sliding_window = sizes[0] if sizes else None
        # Derived from the blocks, also when read back from a file. Exported directories repeat them
        # as transformers' per_layer_config; applied, it would size caches by layer and not by slot.
        for name in ("num_hidden_layers", "layer_types", "sliding_window", "per_layer_config"):
            kwargs.pop(name, None)
        super().__init__(**kwargs)

    @property
    def attending(self) -> list[dict[str, dict[str, Any]]]:
        """The blocks that keep keys and values."""
        return [block for block in self.blocks if block["attention"]["kind"] == "gqa"]


class PuzzleAttention(nn.Module):
    """Grouped-query attention with its own number of key-value heads."""

    def __init__(self, config: PuzzleModelConfig, spec: dict[str, Any], cache_slot: int):
        super().__init__()
        self.config = config
        self.layer_idx = cache_slot
        self.rotate, self.eager = llama().apply_rotary_pos_emb, llama().eager_attention_forward
        self.head_dim = config.head_dim
        self.sliding_window = spec.get("sliding_window")
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        heads, kv_heads = config.num_attention_heads, spec["num_key_value_heads"]
        self.num_key_value_groups = heads // kv_heads
        hidden, query, key = config.hidden_size, heads * self.head_dim, kv_heads * self.head_dim
        self.q_proj = nn.Linear(hidden, query, bias=config.qkv_bias)
        self.k_proj = nn.Linear(hidden, key, bias=config.qkv_bias)
        self.v_proj = nn.Linear(hidden, key, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query, hidden, bias=config.o_bias)
        if config.qk_norm:
            self.q_norm = llama().LlamaRMSNorm(self.head_dim, eps=config.rms_norm_eps)
            self.k_norm = llama().LlamaRMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def heads(
        self,
        x_BTH: torch.Tensor,
        rope: Rope,
        mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        attend: Callable[..., tuple[torch.Tensor, Any]] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """What enters the output projection: the heads' outputs side by side, [B, T, N*D].

        ``attend`` stands in for the attention function that the configuration names.
        """
        split = (*x_BTH.shape[:-1], -1, self.head_dim)
        q_BTND, k_BTKD = self.q_proj(x_BTH).view(split), self.k_proj(x_BTH).view(split)
        if self.config.qk_norm:
            q_BTND, k_BTKD = self.q_norm(q_BTND), self.k_norm(k_BTKD)
        q_BNTD, k_BKTD = q_BTND.transpose(1, 2), k_BTKD.transpose(1, 2)
        v_BKTD = self.v_proj(x_BTH).view(split).transpose(1, 2)
        q_BNTD, k_BKTD = self.rotate(q_BNTD, k_BKTD, *rope)
        if cache is not None:
            k_BKTD, v_BKTD = cache.update(k_BKTD, v_BKTD, self.layer_idx)
        attend = attend or ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation or "eager", self.eager
        )
        o_BTND, _ = attend(
            self,
            q_BNTD,
            k_BKTD,
            v_BKTD,
            mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        return o_BTND.reshape(*x_BTH.shape[:-1], -1)

    def forward(self, x_BTH: torch.Tensor, rope: Rope, **kwargs: Any) -> torch.Tensor:
        return self.o_proj(self.heads(x_BTH, rope, **kwargs).contiguous())


class PuzzleLinearAttention(nn.Module):
    """Attention replaced by one matrix: every token attends to itself alone."""

    def __init__(self, config: PuzzleModelConfig):
        super().__init__()
        self.linear_attn = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x_BTH: torch.Tensor, rope: Rope, **kwargs: Any) -> torch.Tensor:
        return self.linear_attn(x_BTH)


class PuzzleMLP(nn.Module):
    """Gated feed-forward network with its own width I."""

    def __init__(self, config: PuzzleModelConfig, width: int):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, width, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, width, bias=config.mlp_bias)
        self.down_proj = nn.Linear(width, config.hidden_size, bias=config.mlp_bias)
        self.act_fn = ACT2FN[config.hidden_act]

    def channels(self, x_BTH: torch.Tensor) -> torch.Tensor:
        """What enters the down projection, [B, T, I]."""
        return self.act_fn(self.gate_proj(x_BTH)) * self.up_proj(x_BTH)

    def forward(self, x_BTH: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.channels(x_BTH))


class PuzzleLinearMLP(nn.Module):
    """Feed-forward network replaced by one matrix."""

    def __init__(self, config: PuzzleModelConfig):
        super().__init__()
        self.linear_mlp = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x_BTH: torch.Tensor) -> torch.Tensor:
        return self.linear_mlp(x_BTH)


class PuzzleLayer(nn.Module):
    """One decoder layer; either half may be missing.

    A layer with one half missing is also how a block library holds a single sub-block: its state
    then has exactly the names that this half has in the whole model.
    """

    def __init__(
        self, config: PuzzleModelConfig, block: dict[str, dict[str, Any]], cache_slot: int = 0
    ):
        super().__init__()
        attention, ffn = block["attention"], block["ffn"]
        self.sliding_window = attention.get("sliding_window")
        # Either stays None where the half is missing; typed loosely, since callers know the kind.
        self.self_attn: Any = None
        self.mlp: Any = None
        if attention["kind"] != "no_op":
            self.input_layernorm = llama().LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
            self.self_attn = (
                PuzzleAttention(config, attention, cache_slot)
                if attention["kind"] == "gqa"
                else PuzzleLinearAttention(config)
            )
        if ffn["kind"] != "no_op":
            self.post_attention_layernorm = llama().LlamaRMSNorm(
                config.hidden_size, eps=config.rms_norm_eps
            )
            self.mlp = (
                PuzzleMLP(config, ffn["intermediate_size"])
                if ffn["kind"] == "mlp"
                else PuzzleLinearMLP(config)
            )

    def attend(self, x_BTH: torch.Tensor, rope: Rope, **kwargs: Any) -> torch.Tensor:
        """The attention half with its residual connection."""
        if self.self_attn is None:
            return x_BTH
        return x_BTH + self.self_attn(self.input_layernorm(x_BTH), rope, **kwargs)

    def feed(self, x_BTH: torch.Tensor) -> torch.Tensor:
        """The feed-forward half with its residual connection."""
        if self.mlp is None:
            return x_BTH
        return x_BTH + self.mlp(self.post_attention_layernorm(x_BTH))

    def forward(self, x_BTH: torch.Tensor, rope: Rope, **kwargs: Any) -> torch.Tensor:
        return self.feed(self.attend(x_BTH, rope, **kwargs))


class PuzzlePreTrainedModel(PreTrainedModel):
    config_class = PuzzleModelConfig
    config: PuzzleModelConfig  # pyrefly: ignore[bad-override-mutable-attribute]
    base_model_prefix = "model"
    supports_gradient_checkpointing = False
    _no_split_modules = ["PuzzleLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True


class PuzzleModel(PuzzlePreTrainedModel):
    """Embedding, layers and final norm."""

    def __init__(self, config: PuzzleModelConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers, cache_slot = [], 0
        for block in config.blocks:
            layers.append(PuzzleLayer(config, block, cache_slot))
            cache_slot += block["attention"]["kind"] == "gqa"
        self.layers = nn.ModuleList(layers)
        self.norm = llama().LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        # It reads sizes and rotary parameters, which both configurations call the same.
        self.rotary_emb = llama().LlamaRotaryEmbedding(cast(LlamaConfig, config))
        self.post_init()

    def masks(
        self,
        x_BTH: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        cache: Cache | None = None,
    ) -> dict[int | None, Any]:
        """The attention mask for each window size in use; ``None`` where plain causal will do.

        ``generate`` with a static cache has made the masks already and passes them by layer type.
        """
        windows = {block["attention"].get("sliding_window") for block in self.config.attending}
        if isinstance(attention_mask, dict):
            kinds = {True: "sliding_attention", False: "full_attention"}
            return {window: attention_mask[kinds[window is not None]] for window in windows}
        make = {True: create_sliding_window_causal_mask, False: create_causal_mask}
        return {
            window: make[window is not None](
                config=self.config,
                inputs_embeds=x_BTH,
                attention_mask=attention_mask,
                past_key_values=cache,
                position_ids=position_ids,
            )
            for window in windows
        }

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """``hidden_states``, where asked for, are those entering each layer and the normed last."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        x_BTH = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache is None:
            use_cache = self.config.use_cache
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(x_BTH.shape[1], device=x_BTH.device)[None] + seen
        masks = self.masks(x_BTH, position_ids, attention_mask, past_key_values)
        rope = self.rotary_emb(x_BTH, position_ids=position_ids)
        for name in ("return_dict", "cache_position", "output_attentions", "use_cache"):
            kwargs.pop(name, None)

        states = [x_BTH] if output_hidden_states else None
        for layer in self.layers:
            x_BTH = layer(
                x_BTH,
                rope,
                mask=masks.get(layer.sliding_window),
                cache=past_key_values,
                **kwargs,
            )
            if states is not None:
                states.append(x_BTH)
        x_BTH = self.norm(x_BTH)
        if states is not None:
            states[-1] = x_BTH
        return BaseModelOutputWithPast(
            last_hidden_state=x_BTH,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=tuple(states) if states is not None else None,
        )


class PuzzleForCausalLM(PuzzlePreTrainedModel, GenerationMixin):
    """The model with its language-modelling head."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: PuzzleModelConfig):
        super().__init__(config)
        self.model = PuzzleModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
        )


if __name__ == "adaptive.llm_puzzle.modeling_puzzle":
    # As part of the library, not as a copy beside a checkpoint: children then load without
    # remote code.
    AutoConfig.register(PuzzleModelConfig.model_type, PuzzleModelConfig, exist_ok=True)
    AutoModelForCausalLM.register(PuzzleModelConfig, PuzzleForCausalLM, exist_ok=True)
