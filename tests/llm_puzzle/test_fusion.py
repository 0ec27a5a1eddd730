"""FFN fusion: which FFNs merge, that the merged one is their sum, and a run that keeps it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_puzzle import LINEAR, NO_OP, blocks_of, gqa, mlp

from adaptive.core import UserError
from adaptive.llm_puzzle.blocks import (
    NO_ATTENTION,
    NO_FFN,
    AttentionOption,
    BlockOption,
    FFNOption,
)
from adaptive.llm_puzzle.fusion import NORM, fuse, fuse_weights, fused_blocks, runs
from adaptive.llm_puzzle.fusion_stage import reason_against
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer, PuzzleModelConfig
from adaptive.llm_puzzle.realise import realise_child
from adaptive.llm_puzzle.shapes import stack

HALF = {"kind": "mlp", "intermediate_size": 24, "bits": "fp8"}

# Layers, and the runs among them.
CASES: dict[str, tuple[list[tuple[dict, dict]], list[list[int]]]] = {
    "the first attends": ([(gqa(4), mlp(48)), (NO_OP, mlp(24)), (NO_OP, mlp(8))], [[0, 1, 2]]),
    "attention between": ([(gqa(4), mlp(48)), (gqa(4), mlp(24)), (NO_OP, mlp(8))], [[1, 2]]),
    "linear attention between": ([(NO_OP, mlp(8)), (LINEAR, mlp(8)), (gqa(4), mlp(8))], []),
    "an empty layer": ([(gqa(4), mlp(48)), (NO_OP, NO_OP), (NO_OP, mlp(8))], [[0, 2]]),
    "attention alone": ([(NO_OP, mlp(8)), (gqa(4), NO_OP), (NO_OP, mlp(8))], []),
    "attention alone first": ([(gqa(4), NO_OP), (NO_OP, mlp(8)), (NO_OP, mlp(16))], [[1, 2]]),
    "a linear FFN": ([(gqa(4), mlp(48)), (NO_OP, LINEAR), (NO_OP, mlp(8))], []),
    "a run on either side": (
        [(NO_OP, mlp(8)), (NO_OP, mlp(8)), (NO_OP, LINEAR), (NO_OP, mlp(8)), (NO_OP, mlp(8))],
        [[0, 1], [3, 4]],
    ),
    "fewer bits": ([(NO_OP, mlp(8)), (NO_OP, mlp(8)), (NO_OP, HALF), (NO_OP, mlp(8))], [[0, 1]]),
    "nothing": ([], []),
}


@pytest.mark.parametrize("case", CASES)
def test_runs_by_hand(case):
    layers, wanted = CASES[case]
    assert runs(blocks_of(layers)) == wanted


def test_a_reader_may_want_an_ffn_in_the_last_layer():
    blocks = blocks_of([(NO_OP, mlp(8))] * 3)
    assert runs(blocks, keep_last=True) == [[0, 1]]
    assert fused_blocks(blocks, [[0, 1]])[2] == blocks[2]
    assert runs(blocks[:2], keep_last=True) == []


OPTIONS = st.builds(
    BlockOption,
    st.sampled_from([AttentionOption("gqa", 2), AttentionOption("linear"), *3 * [NO_ATTENTION]]),
    st.sampled_from(
        [*(FFNOption("mlp", w) for w in (8, 16, 24)), NO_FFN]
        + [FFNOption("linear"), FFNOption("mlp", 8, "int4")]
    ),
)
CONFIG = PuzzleModelConfig(
    vocab_size=11, hidden_size=16, num_attention_heads=4, initializer_range=0.5, hidden_act="silu"
)


def random_child(config: PuzzleModelConfig, seed: int) -> PuzzleForCausalLM:
    """In double precision, its norms and biases random as well."""
    torch.manual_seed(seed)
    child = PuzzleForCausalLM(config).double().eval().requires_grad_(False)
    for weight in child.parameters():
        if weight.ndim == 1:
            weight.copy_(torch.randn_like(weight))
    return child


class Own(Library):
    """The sub-blocks of a model itself, as a library."""

    def weights(self, model, layer, option):
        norm = "input" if isinstance(option, AttentionOption) else "post_attention"
        half = "self_attn." if isinstance(option, AttentionOption) else "mlp."
        own = model.model.layers[layer].state_dict()
        return {k: v for k, v in own.items() if k.startswith((f"{norm}_layernorm.", half))}


@torch.no_grad()
def in_parallel(child: PuzzleForCausalLM, merged: list[list[int]], ids: torch.Tensor):
    """Logits of a child whose runs of FFNs all read what enters the first of them."""
    inner, at = child.model, {i: run for run in merged for i in run}
    x_BTH = inner.embed_tokens(ids)
    rope = inner.rotary_emb(x_BTH, position_ids=torch.arange(ids.shape[1])[None])
    entering: dict[int, torch.Tensor] = {}
    for i, layer in enumerate(inner.layers):
        x_BTH = layer.attend(x_BTH, rope)
        if i not in at:
            x_BTH = layer.feed(x_BTH)
            continue
        first_BTH = entering.setdefault(at[i][0], x_BTH)
        x_BTH = x_BTH + layer.mlp(layer.post_attention_layernorm(first_BTH))
    return child.lm_head(inner.norm(x_BTH))


@settings(max_examples=40, deadline=None)
@given(st.lists(OPTIONS, min_size=1, max_size=7), st.booleans(), st.integers(0, 1000))
def test_a_fused_child_is_the_parallel_one_exactly(tmp_path_factory, blocks, bias, seed):
    """And of as many parameters, less the norms and the output biases that have become one."""
    entries = [block.to_config() for block in blocks]
    values = CONFIG.to_dict() | {"blocks": entries, "mlp_bias": bias, "tie_word_embeddings": False}
    child = random_child(PuzzleModelConfig(**values), seed)
    merged = runs(blocks)
    directory = tmp_path_factory.mktemp("fusion")
    library = fuse(child, blocks, merged, Own(directory / "none"), directory)
    fused = realise_child(child, fused_blocks(blocks), library)
    ids = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(seed))
    wanted = in_parallel(child, merged, ids)
    torch.testing.assert_close(fused(ids).logits, wanted, rtol=1e-10, atol=1e-10)

    fewer = sum(len(run) - 1 for run in merged) * 16 * (1 + bias)
    counts = [sum(w.numel() for w in model.parameters()) for model in (child, fused)]
    assert counts[0] - counts[1] == fewer
    assert counts[1] == stack(fused.config).params()


@given(st.lists(OPTIONS, max_size=12))
def test_laws_of_runs(blocks):
    merged, fused = runs(blocks), fused_blocks(blocks)
    flat = [i for run in merged for i in run]
    assert flat == sorted(set(flat)) and all(len(run) > 1 for run in merged)
    assert runs(fused) == [] and fused_blocks(fused) == fused  # runs are maximal
    assert [b.attention for b in fused] == [b.attention for b in blocks]  # none is lost
    assert sum(b.ffn.width for b in fused) == sum(b.ffn.width for b in blocks)
    for i, (before, after) in enumerate(zip(blocks, fused, strict=True)):
        assert (before == after) == (i not in flat)
    for run in merged:
        between = [blocks[i] for i in range(run[0], run[-1] + 1) if i not in run]
        assert all(block == BlockOption(NO_ATTENTION, NO_FFN) for block in between)


def test_half_precision_is_rounded_once():
    torch.manual_seed(0)
    entry = BlockOption(NO_ATTENTION, FFNOption("mlp", 8)).to_config()
    config = PuzzleModelConfig(**CONFIG.to_dict() | {"mlp_bias": True})
    states = [
        {
            name: torch.randn(w.shape).bfloat16()
            for name, w in PuzzleLayer(config, entry).state_dict().items()
        }
        for _ in range(3)
    ]
    found = fuse_weights(states)
    exact = fuse_weights([{name: w.double() for name, w in s.items()} for s in states])
    assert torch.equal(found[NORM], torch.ones(16).bfloat16())
    for name, weight in found.items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, exact[name].bfloat16()), name


def test_a_merged_ffn_as_wide_as_the_parents_is_not_the_parents(parent, tmp_path):
    """Two FFNs of 24 make one of 48, which is how wide the parent's own are."""
    blocks = blocks_of([(gqa(4), mlp(24)), (NO_OP, mlp(24)), (gqa(4), mlp(48))])
    half = {
        name: weight[:24] if name.startswith(("mlp.gate", "mlp.up")) else weight
        for name, weight in parent.model.model.layers[0].state_dict().items()
        if name.startswith(("mlp.", "post_"))
    }
    half["mlp.down_proj.weight"] = half["mlp.down_proj.weight"][:, :24]

    class Halves(Library):
        def state(self, layer, option):
            return half

    library = fuse(parent.model, blocks, runs(blocks), Halves(tmp_path / "none"), tmp_path)
    child = realise_child(parent.model, fused_blocks(blocks), library)
    found = child.model.layers[0].mlp.up_proj.weight
    norm_H = half[NORM]
    torch.testing.assert_close(found, torch.cat(2 * [half["mlp.up_proj.weight"] * norm_H]))
    own = parent.model.model.layers
    assert torch.equal(child.model.layers[2].mlp.up_proj.weight, own[2].mlp.up_proj.weight)
    (tmp_path / "layer_000" / "ffn-ffn48.safetensors").unlink()
    with pytest.raises(UserError, match="is missing"):
        realise_child(parent.model, fused_blocks(blocks), library)


def change(before: float, after: float) -> dict[str, float]:
    return {"before": before, "after": after}


@pytest.mark.parametrize(
    ("kl", "latency", "reason"),
    [
        (change(1.0, 1.09), change(2.0, 1.9), None),
        (change(1.0, 0.9), change(2.0, 1.9), None),
        (change(1.0, 1.11), change(2.0, 1.9), "search.fuse_limit=0.1"),
        (change(1.0, float("nan")), change(2.0, 1.9), "search.fuse_limit"),
        (change(1.0, 1.0), change(2.0, 2.0), "no faster"),
        (change(1.0, 1.0), change(2.0, 1.999), "no faster"),  # clocks cannot tell
        (change(1.0, 1.0), change(2.0, float("nan")), "no faster"),
    ],
)
def test_what_is_kept(kl, latency, reason):
    found = reason_against(kl, latency, 0.1)
    assert found is None if reason is None else reason in str(found)
