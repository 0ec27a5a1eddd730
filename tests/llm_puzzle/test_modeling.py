"""The one model: equal to transformers' for every parent, and sound for every child."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    StaticCache,
)

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.adapters import ARCHITECTURES, translate
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleModelConfig

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
GROUPED = {"num_key_value_heads": 2}

CASES: dict[str, list[tuple[type[PretrainedConfig], dict[str, Any]]]] = {
    "llama": [
        (LlamaConfig, {}),
        (LlamaConfig, GROUPED | {"attention_bias": True}),
        (LlamaConfig, {"mlp_bias": True}),
        (LlamaConfig, GROUPED | {"tie_word_embeddings": True, "hidden_act": "gelu"}),
        (LlamaConfig, {"head_dim": 16, "rope_parameters": LLAMA3_ROPE}),
    ],
    "mistral": [
        (MistralConfig, GROUPED | {"sliding_window": 5}),
        (MistralConfig, {"sliding_window": None, "head_dim": 6}),
    ],
    "qwen2": [
        (Qwen2Config, GROUPED),
        (
            Qwen2Config,
            {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
        ),
        (
            Qwen2Config,
            {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
            | {"use_sliding_window": True, "sliding_window": 4},
        ),
    ],
    "qwen3": [
        (Qwen3Config, GROUPED | {"head_dim": 16, "tie_word_embeddings": True}),
        (Qwen3Config, {"head_dim": 12, "attention_bias": True}),
        (
            Qwen3Config,
            GROUPED
            | {"head_dim": 16, "use_sliding_window": True}
            | {"sliding_window": 5, "max_window_layers": 2},
        ),
    ],
}
PROMPT = 19  # longer than every window


def pairs() -> list[Any]:
    return [
        pytest.param(kind, changes, id=f"{name}-{i}")
        for name in ARCHITECTURES
        for i, (kind, changes) in enumerate(CASES.get(name, []))
    ]


def test_every_architecture_has_a_case():
    assert set(CASES) == set(ARCHITECTURES)


def theirs_and_ours(kind, changes, shape) -> tuple[Any, PuzzleForCausalLM]:
    """A random model of transformers, biases and norms included, and ours with its weights."""
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(kind(**{**shape, **changes})).eval()
    for name, weight in theirs.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, mean=float("norm" in name), std=0.3)
    ours = PuzzleForCausalLM(translate(theirs.config)).eval()
    ours.load_state_dict(theirs.state_dict())  # strict: names and shapes are the same
    return theirs, ours


@pytest.mark.parametrize(("kind", "changes"), pairs())
@torch.no_grad()
def test_logits_and_generation_equal_transformers(kind, changes, shape):
    theirs, ours = theirs_and_ours(kind, changes, shape)
    ids = torch.randint(3, shape["vocab_size"], (3, PROMPT))
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=0, atol=1e-5)
    written = [
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        for model in (ours, theirs)
    ]
    assert torch.equal(*written)


@pytest.mark.parametrize(("kind", "changes"), pairs())
@torch.no_grad()
def test_left_padding_equals_transformers_and_changes_nothing(kind, changes, shape):
    theirs, ours = theirs_and_ours(kind, changes, shape)
    ids = torch.randint(3, shape["vocab_size"], (2, PROMPT))
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    given = {"attention_mask": mask, "position_ids": positions}
    real = mask.bool()
    found = ours(ids, **given).logits
    torch.testing.assert_close(found[real], theirs(ids, **given).logits[real], rtol=0, atol=1e-5)
    alone = ours(ids[:1, 7:]).logits
    torch.testing.assert_close(found[:1, 7:], alone, rtol=0, atol=1e-5)
    padded, bare = (
        model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0)
        for model in (ours, theirs)
    )
    assert torch.equal(padded, bare)


@pytest.mark.parametrize(("kind", "changes"), pairs())
def test_gradients_and_loss_equal_transformers(kind, changes, shape):
    theirs, ours = theirs_and_ours(kind, changes, shape)
    ids = torch.randint(3, shape["vocab_size"], (2, PROMPT))
    losses = [model(ids, labels=ids).loss for model in (ours, theirs)]
    torch.testing.assert_close(*losses)
    name = "model.layers.0.self_attn.k_proj.weight"
    grads = [
        torch.autograd.grad(loss, model.get_parameter(name))[0]
        for loss, model in zip(losses, (ours, theirs), strict=True)
    ]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_eager_attention_is_causal_too(shape):
    theirs, ours = theirs_and_ours(MistralConfig, {"sliding_window": 5}, shape)
    ids = torch.randint(3, shape["vocab_size"], (2, PROMPT))
    wanted = theirs(ids).logits
    ours.set_attn_implementation("eager")
    torch.testing.assert_close(ours(ids).logits, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_hidden_states_equal_transformers(shape):
    theirs, ours = theirs_and_ours(LlamaConfig, {}, shape)
    ids = torch.randint(3, shape["vocab_size"], (2, 5))
    wanted = theirs(ids, output_hidden_states=True).hidden_states
    found = ours(ids, output_hidden_states=True).hidden_states
    assert len(found) == len(wanted) == shape["num_hidden_layers"] + 1
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_unknown_architecture_is_one_sentence():
    with pytest.raises(UserError, match=r"parent: unknown architecture 'gpt2', choose one of"):
        translate(GPT2Config())


def test_a_child_is_a_parent_as_well(make_child):
    config = make_child("windows").config
    assert translate(config) is config


# --- children ---


@torch.no_grad()
def without_cache(model: PuzzleForCausalLM, ids: torch.Tensor, steps: int) -> torch.Tensor:
    """Greedy continuation by whole forward passes."""
    for _ in range(steps):
        ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    return ids


GREEDY: dict[str, Any] = {"max_new_tokens": 9, "do_sample": False, "eos_token_id": None}


@pytest.mark.parametrize("cache", ["default", "dynamic", "static"])
def test_a_child_generates_with_a_cache_as_without(child, cache):
    ids = torch.randint(3, child.config.vocab_size, (2, 7))
    made = {
        "default": lambda: {},
        "dynamic": lambda: {"past_key_values": DynamicCache(config=child.config)},
        "static": lambda: {"past_key_values": StaticCache(config=child.config, max_cache_len=20)},
    }[cache]()
    written = child.generate(ids, attention_mask=torch.ones_like(ids), **GREEDY, **made)
    assert torch.equal(written, without_cache(child, ids, 9))


@torch.no_grad()
def test_chunked_prefill_equals_one_pass(child):
    ids = torch.randint(3, child.config.vocab_size, (2, 12))
    cache = DynamicCache(config=child.config)
    parts = [child(chunk, past_key_values=cache).logits for chunk in ids.split([6, 1, 5], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), child(ids).logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_left_padding_changes_nothing_for_a_child(child):
    ids = torch.randint(3, child.config.vocab_size, (2, 11))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    written = child.generate(ids, attention_mask=mask, pad_token_id=0, **GREEDY)
    assert torch.equal(written[1:], without_cache(child, ids[1:], 9))
    assert torch.equal(written[:1, 4:], without_cache(child, ids[:1, 4:], 9))


@torch.no_grad()
def test_cache_sizes_follow_the_heads_of_each_layer(child):
    ids = torch.randint(3, child.config.vocab_size, (2, 4))  # shorter than every window
    cache = child(ids, use_cache=True).past_key_values
    held = [
        layer.keys.shape[1] for layer in cache.layers if getattr(layer, "is_initialized", False)
    ]
    wanted = [b["attention"]["num_key_value_heads"] for b in child.config.attending]
    assert held == wanted
    size = sum(
        tensor.numel()
        for layer in cache.layers
        if getattr(layer, "is_initialized", False)
        for tensor in (layer.keys, layer.values)
    )
    assert size == 2 * 2 * 4 * sum(wanted) * child.config.head_dim


def test_a_no_op_holds_no_parameters(make_child):
    model = make_child("empty layer")
    names = {name for name, _ in model.named_parameters()}
    assert not any(name.startswith(("model.layers.0.", "model.layers.2.")) for name in names)
    half_empty = {n for n, _ in make_child("no-op first").model.layers[0].named_parameters()}
    assert half_empty == {
        "post_attention_layernorm.weight",
        *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    }


def test_config_survives_json(child):
    again = PuzzleModelConfig(**child.config.to_dict())
    assert again.to_dict() == child.config.to_dict()
    assert again.blocks == child.config.blocks


def test_windows_of_two_sizes_are_refused(make_child):
    """A transformers cache knows one size; two would be cut off at the wrong token."""
    blocks = make_child("windows").config.to_dict()["blocks"]
    blocks[3]["attention"]["sliding_window"] = 7
    with pytest.raises(ValueError, match=r"must be of one size, these blocks have \[5, 7\]"):
        PuzzleModelConfig(blocks=blocks)


def test_input_ids_and_embeddings_exclude_each_other(make_child):
    model = make_child("nothing")
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model.model()
