"""Laws of the starting weights."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_puzzle import SHAPE
from torch import nn
from transformers import LlamaConfig, Qwen3Config

from adaptive.llm_puzzle.adapters import translate
from adaptive.llm_puzzle.blocks import AttentionOption, FFNOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.initialise import LayerInitialiser, mean_pool_heads
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.walk import LayerActivations, Positions, walk

LINEAR_ATTENTION, LINEAR_FFN = AttentionOption("linear"), FFNOption("linear")
OPTIONS = [
    *(AttentionOption("gqa", k) for k in (4, 2, 1)),
    LINEAR_ATTENTION,
    *(FFNOption("mlp", w) for w in (48, 40, 24, 8)),
    LINEAR_FFN,
]
RIDGE = 1e-4

PARENTS = {
    "plain": (LlamaConfig, {}),
    "biased": (LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "normed heads": (Qwen3Config, {"head_dim": 16}),
}


@pytest.fixture(scope="module", params=PARENTS)
def model(request) -> PuzzleForCausalLM:
    """Random parents; their biases and norms are random as well."""
    kind, changes = PARENTS[request.param]
    torch.manual_seed(0)
    model = PuzzleForCausalLM(translate(kind(**SHAPE, **changes))).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            nn.init.normal_(weight, mean=float("norm" in name), std=0.3)
    return model


@pytest.fixture(scope="module")
def layers(model, rows) -> list[LayerActivations]:
    return list(walk(model, rows, batch=8))


def initialiser(model, at: LayerActivations, ridge: float = RIDGE) -> LayerInitialiser:
    return LayerInitialiser(model, at, batch=8, ridge=ridge)


def contribution(model, at: LayerActivations, variant, option) -> torch.Tensor:
    """What a variant adds to the residual stream at real tokens, [M, H]."""
    with torch.no_grad():
        if isinstance(option, FFNOption):
            return (variant.feed(at.mid_NTH) - at.mid_NTH)[at.mask_NT]
        positions = Positions.of(model, at.x_NTH)
        return (positions.attend(variant, at.x_NTH) - at.x_NTH)[at.mask_NT]


def error(model, at: LayerActivations, variant, option) -> float:
    """Squared error of the sub-block's own output on the calibration rows."""
    wanted = contribution(model, at, at.layer, option)
    found = contribution(model, at, variant, option)
    return (found - wanted).double().square().sum().item()


# --- the paper's start ---


@pytest.mark.parametrize("option", [AttentionOption("gqa", 4), FFNOption("mlp", 48)])
def test_keeping_everything_reproduces_the_parent_exactly(model, layers, option):
    for at in layers:
        variant = initialiser(model, at)(option, "paper")
        own = at.layer.state_dict()
        state = variant.state_dict()
        assert state and all(torch.equal(own[name], weight) for name, weight in state.items())
        assert error(model, at, variant, option) == 0


def test_mean_pooling_by_hand():
    """Four heads of two rows to two heads: neighbours share a group, as query heads do."""
    weight = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [9.0], [10.0]])
    pooled = mean_pool_heads(weight, rows=4, head_dim=2)
    assert pooled.flatten().tolist() == [2.0, 3.0, 7.0, 8.0]
    assert mean_pool_heads(weight[:, 0], rows=2, head_dim=2).tolist() == [4.5, 5.5]


def test_pooling_heads_that_are_equal_loses_nothing(model, layers):
    """Where the heads of a group are the same, one of them does all their work."""
    at = layers[1]
    layer = copy.deepcopy(at.layer)
    attention = layer.self_attn
    for name in ("k_proj", "v_proj"):
        for weight in getattr(attention, name).parameters():
            weight.copy_(
                mean_pool_heads(weight, weight.shape[0] // 2, attention.head_dim)
                .unflatten(0, (-1, attention.head_dim))
                .repeat_interleave(2, dim=0)
                .flatten(0, 1)
            )
    mid = Positions.of(model, at.x_NTH).attend(layer, at.x_NTH)
    again = LayerActivations(at.index, layer, at.device, at.x_NTH, mid, layer.feed(mid), at.mask_NT)
    option = AttentionOption("gqa", 2)
    variant = initialiser(model, again)(option, "paper")
    wanted = contribution(model, again, layer, option)
    found = contribution(model, again, variant, option)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_channels_are_kept_by_contribution(model, layers):
    """C_i = mean |h_i| * ||W_down[:, i]||, computed here token by token."""
    at = layers[0]
    mlp, norm = at.layer.mlp, at.layer.post_attention_layernorm
    tokens = [mid[:n] for mid, n in zip(at.mid_NTH, at.mask_NT.sum(1).tolist(), strict=True)]
    h_MI = torch.cat([mlp.channels(norm(token)) for token in tokens])
    wanted = h_MI.abs().mean(0) * mlp.down_proj.weight.norm(dim=0)
    make = initialiser(model, at)
    torch.testing.assert_close(make.channel_contribution().float(), wanted, rtol=1e-4, atol=1e-6)
    keep = sorted(wanted.topk(8).indices.tolist())
    variant = make(FFNOption("mlp", 8), "paper").mlp
    assert torch.equal(variant.up_proj.weight, mlp.up_proj.weight[keep])
    assert torch.equal(variant.gate_proj.weight, mlp.gate_proj.weight[keep])
    assert torch.equal(variant.down_proj.weight, mlp.down_proj.weight[:, keep])


def test_linear_attention_is_the_parents_on_a_single_token(model):
    """A token that sees itself alone: softmax of one, so attention is W_O W_V.

    Biases are zeroed: one matrix has no room for them.
    """
    model = copy.deepcopy(model)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.zero_()
    rows = Rows.pack([[token] for token in range(3, 40)])
    for at in walk(model, rows, batch=8):
        variant = initialiser(model, at)(LINEAR_ATTENTION, "paper")
        wanted = contribution(model, at, at.layer, LINEAR_ATTENTION)
        found = contribution(model, at, variant, LINEAR_ATTENTION)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_linear_ffn_leaves_the_gate_out(model, layers):
    mlp = layers[0].layer.mlp
    variant = initialiser(model, layers[0])(LINEAR_FFN, "paper").mlp
    x = torch.randn(5, 32)
    wanted = x @ mlp.up_proj.weight.T @ mlp.down_proj.weight.T
    torch.testing.assert_close(variant(x), wanted, rtol=1e-4, atol=1e-5)


# --- the closed-form start ---


def last_matrix(variant, option) -> torch.Tensor:
    half = variant.mlp if isinstance(option, FFNOption) else variant.self_attn
    names = ("down_proj", "linear_mlp", "o_proj", "linear_attn")
    return next(getattr(half, name).weight for name in names if hasattr(half, name))


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.label)
def test_ridge_never_starts_worse_than_the_paper(model, layers, option):
    """The ridge solution has the least regularised error, so its plain error exceeds the paper's
    by no more than the paper's penalty."""
    for at in layers:
        make = initialiser(model, at)
        variants = {how: make(option, how) for how in ("paper", "ridge")}
        errors = {how: error(model, at, v, option) for how, v in variants.items()}
        features = feature_energy(model, at, variants["paper"], option)
        strength = RIDGE * features.mean().item()
        penalty = strength * last_matrix(variants["paper"], option).square().sum().item()
        assert errors["ridge"] <= errors["paper"] + penalty + 1e-4


def feature_energy(model, at: LayerActivations, variant, option) -> torch.Tensor:
    """Sum of squares over tokens of every feature that enters the last matrix, [F]."""
    if option.kind == "linear":
        x = at.mid_NTH if isinstance(option, FFNOption) else at.x_NTH
        norms = ("post_attention_layernorm", "input_layernorm")
        norm = getattr(at.layer, norms[isinstance(option, AttentionOption)])
        features = norm(x[at.mask_NT])
    elif isinstance(option, FFNOption):
        normed = variant.post_attention_layernorm(at.mid_NTH[at.mask_NT])
        features = variant.mlp.channels(normed)
    else:
        features = Positions.of(model, at.x_NTH).heads(variant, at.x_NTH)[at.mask_NT]
    return features.double().square().sum(0)


def test_ridge_starts_lower_than_the_paper_on_average(model, layers):
    for option in OPTIONS:
        if option in (AttentionOption("gqa", 4), FFNOption("mlp", 48)):
            continue  # the paper's start is the parent there
        ratios = []
        for at in layers:
            make = initialiser(model, at)
            errors = [error(model, at, make(option, how), option) for how in ("ridge", "paper")]
            ratios.append(errors[0] / errors[1])
        assert sum(ratios) / len(ratios) < 0.9, option


def test_padding_has_no_say(model, rows):
    """The same rows with more padding behind them start at the same weights."""
    wide = Rows(nn.functional.pad(rows.ids_NT, (0, 6), value=5), rows.lengths_N)
    for at, padded in zip(walk(model, rows, 8), walk(model, wide, 8), strict=True):
        for option in (AttentionOption("gqa", 1), LINEAR_FFN):
            first, second = (initialiser(model, a)(option, "ridge") for a in (at, padded))
            for a, b in zip(first.parameters(), second.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
