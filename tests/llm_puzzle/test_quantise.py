"""Fewer bits as options: what the formats can hold, what they cost, what a child is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_puzzle import library_of

from adaptive.core import UserError, Workload
from adaptive.core.cost import Roofline
from adaptive.core.hardware import DEVICES
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.prices import Pricing
from adaptive.llm_puzzle.quantise import FORMATS, round_child, rounded
from adaptive.llm_puzzle.realise import realise_child
from adaptive.llm_puzzle.score import compare, inversions, score_library
from adaptive.llm_puzzle.settings import ScoreConfig, SpaceConfig
from adaptive.llm_puzzle.space import BITS, search_space

SPACE = SpaceConfig(kv_heads=[1], ffn_fractions=[0.5], layers=[1], bits=[16, 8, 4])
# Relative error of a value at the top of its range: half a step of 3 mantissa bits, or of 1/7.
STEP = {"fp8": 1 / 16, "int4": 1 / 14}


def test_every_number_of_bits_has_its_format():
    assert set(FORMATS) == {name for name in BITS.values() if name}
    assert set(FORMATS) == set(STEP)


@pytest.mark.parametrize("name", FORMATS)
@given(
    seed=st.integers(0, 1000), inputs=st.sampled_from([16, 128, 256]), scale=st.floats(1e-6, 1e3)
)
def test_rounding_is_near_idempotent_and_keeps_signs_and_scale(name, seed, inputs, scale):
    generator = torch.Generator().manual_seed(seed)
    weight_OI = scale * torch.randn(6, inputs, generator=generator)
    found = FORMATS[name](weight_OI)
    most = weight_OI.abs().amax(1, keepdim=True)
    assert ((found - weight_OI).abs() <= STEP[name] * most * 1.001).all()
    torch.testing.assert_close(FORMATS[name](found), found, rtol=1e-5, atol=1e-5 * scale)
    assert (found * weight_OI >= 0).all()
    torch.testing.assert_close(FORMATS[name](2 * weight_OI), 2 * found)
    assert not torch.equal(found, weight_OI)


def test_int4_has_fifteen_values_a_group_and_groups_of_128_inputs():
    weight_OI = torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    weight_OI[0, 128:] *= 100
    found = FORMATS["int4"](weight_OI)
    for group in found.unflatten(1, (2, 128)).flatten(0, 1):
        assert len(group.unique()) <= 15
    # A scale for the whole row would have left nothing of the small half.
    assert (found[0, :128] != 0).float().mean() > 0.5
    # 8 of 192 inputs make no whole groups, so the row is one.
    odd = FORMATS["int4"](weight_OI[:, :192])
    assert len(odd[0].unique()) <= 15


def test_fp8_values_by_hand():
    """448 is the largest; between 256 and 448 the steps are 32, and 2^-9 is the smallest."""
    weight_OI = torch.tensor([[448.0, 300.0, 2.0**-9, 2.0**-11], [0.0, 0.0, 0.0, 0.0]])
    found = FORMATS["fp8"](weight_OI)
    assert found.tolist() == [[448.0, 288.0, 2.0**-9, 0.0], [0.0, 0.0, 0.0, 0.0]]


def test_norms_and_biases_stay_as_they_are():
    state = {"mlp.up_proj.weight": torch.randn(4, 8), "norm.weight": torch.randn(8)}
    found = rounded(state, "int4")
    assert found["norm.weight"] is state["norm.weight"]
    assert not torch.equal(found["mlp.up_proj.weight"], state["mlp.up_proj.weight"])
    assert rounded(state, None) is state


# --- options of the search ---


@pytest.fixture(scope="module")
def space(parent):
    return search_space(SPACE, parent.blocks)


@pytest.fixture(scope="module")
def library(parent, space, rows, tmp_path_factory) -> Library:
    return library_of(parent, space, rows, tmp_path_factory.mktemp("library"))


def test_every_sub_block_comes_in_every_number_of_bits(space):
    labels = [option.label for option in space[1].attention]
    assert labels == [
        *("kv4", "kv1", "linear", "no_op"),
        *("kv4@fp8", "kv1@fp8", "linear@fp8"),
        *("kv4@int4", "kv1@int4", "linear@int4"),
    ]
    assert [o.label for o in space[1].ffn][-1] == "linear@int4" and len(space[1].ffn) == 10
    assert len(space[0].blocks) == 1
    # Only what cannot be rounded from something else is trained.
    assert all(option.bits is None for option in space[1].variants)
    for block in space[1].blocks:
        assert BlockOption.from_config(block.to_config()) == block


@pytest.mark.parametrize("bits", [[8], [16, 2], []])
def test_bits_that_make_no_sense_are_refused(parent, bits):
    with pytest.raises(UserError, match=r"space\.bits=.* must hold 16"):
        search_space(SpaceConfig(bits=bits), parent.blocks)


def test_a_child_of_fewer_bits_is_the_library_rounded(parent, space, library):
    blocks = list(parent.blocks)
    blocks[1] = BlockOption(AttentionOption("gqa", 4, bits="int4"), FFNOption("mlp", 24, "fp8"))
    child = realise_child(parent.model, blocks, library)
    assert child.config.blocks[1]["attention"]["bits"] == "int4"
    ours, theirs = child.model.layers[1].state_dict(), parent.model.model.layers[1].state_dict()
    name = "self_attn.q_proj.weight"
    assert torch.equal(ours[name], FORMATS["int4"](theirs[name]))
    name = "mlp.down_proj.weight"
    stored = library.state(1, FFNOption("mlp", 24))[name]
    assert torch.equal(ours[name], FORMATS["fp8"](stored)) and not torch.equal(ours[name], stored)
    # The parent is not touched, nor is a layer that keeps its bits.
    assert torch.equal(
        child.model.layers[0].mlp.up_proj.weight, parent.model.model.layers[0].mlp.up_proj.weight
    )


def test_training_is_followed_by_rounding(parent, library):
    blocks = list(parent.blocks)
    blocks[1] = BlockOption(AttentionOption("gqa", 4, bits="int4"), blocks[1].ffn)
    child = realise_child(parent.model, blocks, library)
    with torch.no_grad():
        for weight in child.parameters():
            weight.add_(0.01 * torch.randn(weight.shape))
    before = {name: weight.clone() for name, weight in child.state_dict().items()}
    round_child(child)
    for name, weight in child.state_dict().items():
        moved = name.startswith("model.layers.1.self_attn") and weight.ndim == 2
        wanted = FORMATS["int4"](before[name]) if moved else before[name]
        assert torch.equal(weight, wanted), name


def test_scores_are_those_of_rounded_weights(parent, space, library, rows, tmp_path):
    config = ScoreConfig(granularity="subblock")
    scores = score_library(parent.model, space, library, rows, config, tmp_path)
    kl = dict(zip(scores[1].attention, scores[1].values_AF["kl"][:, 0], strict=True))
    assert 0 < kl["kv4@fp8"] < kl["kv4@int4"]
    blocks = list(parent.blocks)
    blocks[1] = BlockOption(AttentionOption("gqa", 4, bits="int4"), blocks[1].ffn)
    measured = compare(parent.model, realise_child(parent.model, blocks, library), rows, 64)["kl"]
    assert kl["kv4@int4"] == pytest.approx(measured, abs=1e-5)
    # Going from the last rung of one format to the first of the next is no step of a ladder.
    assert all("@" not in found.cheaper for found in inversions(scores))


def test_fewer_bits_cost_less_memory_and_nothing_else(parent, space):
    pricing = Pricing(
        parent.model.config, space, Workload(2, 8, 4), Roofline(DEVICES["h100-sxm"]), "bf16"
    )
    whole = pricing.block_cost(space[1].parent)
    for bits, share in (("fp8", 0.5), ("int4", 0.25)):
        block = BlockOption(AttentionOption("gqa", 4, bits=bits), FFNOption("mlp", 48, bits))
        found = pricing.block_cost(block)
        for name in ("latency", "params", "flops"):
            assert found[name] == whole[name]
        cache = 2 * 12 * 2 * 4 * 8 * 2  # batch, tokens, K and V, heads, head size, bytes
        assert found["memory"] - cache == pytest.approx(share * (whole["memory"] - cache))
    labels = np.array([block.label for block in space[1].blocks])
    assert len(set(labels)) == len(labels) == 100
