"""The runner computes what the model computes, with caches of fixed size."""

from __future__ import annotations

import pytest
import torch

from adaptive.llm_puzzle.runtime import FixedCache, Runner, layer_call
from adaptive.llm_puzzle.walk import build

PROMPT, STEPS = 8, 5  # longer than the window of 5, and past it again while decoding


@pytest.mark.parametrize("reserved", [True, False])
@torch.no_grad()
def test_prefill_and_decode_equal_the_model(child, reserved):
    ids = torch.randint(3, child.config.vocab_size, (3, PROMPT + STEPS))
    wanted = child(ids, use_cache=False).logits
    runner = Runner(child)
    if reserved:
        runner.reserve(len(ids), PROMPT + STEPS)
    found = [runner.prefill(ids[:, :PROMPT])]
    for position in range(PROMPT, PROMPT + STEPS):
        found.append(runner.decode(ids[:, position : position + 1], position))
    torch.testing.assert_close(torch.stack(found, 1), wanted[:, PROMPT - 1 :], rtol=0, atol=1e-5)


@torch.no_grad()
def test_decoding_from_the_first_token_equals_the_model(child):
    ids = torch.randint(3, child.config.vocab_size, (2, PROMPT))
    runner = Runner(child)
    runner.reserve(2, PROMPT)
    found = [runner.decode(ids[:, i : i + 1], i) for i in range(PROMPT)]
    wanted = child(ids, use_cache=False).logits
    torch.testing.assert_close(torch.stack(found, 1), wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_step_can_be_run_again(child):
    """Timing repeats a decode step; a CUDA graph replays it."""
    ids = torch.randint(3, child.config.vocab_size, (2, PROMPT + 1))
    runner = Runner(child)
    runner.reserve(2, PROMPT + 1)
    runner.prefill(ids[:, :PROMPT])
    first, second = (runner.decode(ids[:, PROMPT:], PROMPT) for _ in range(2))
    assert torch.equal(first, second)


@torch.no_grad()
def test_prefill_alone_keeps_nothing(child):
    ids = torch.randint(3, child.config.vocab_size, (2, PROMPT))
    runner = Runner(child)
    found = runner.prefill(ids, keep=False)
    torch.testing.assert_close(found, child(ids).logits[:, -1], rtol=0, atol=1e-5)
    assert all(cache.keys is None for cache in runner.caches)


def test_caches_follow_the_heads(make_child):
    runner = Runner(make_child("mixed heads"))
    runner.reserve(3, 20)
    assert [tuple(c.keys.shape) if c.keys is not None else None for c in runner.caches] == [
        (3, heads, 20, 8) for heads in (4, 1, 2, 4)
    ]
    empty = Runner(make_child("no attention"))
    empty.reserve(3, 20)
    assert all(cache.keys is None for cache in empty.caches)


def test_a_cache_shows_no_more_than_its_window():
    cache = FixedCache(window=3)
    keys = torch.arange(6.0).view(1, 1, 6, 1)
    cache.reserve(keys, 8)
    assert cache.update(keys, keys, 0)[0].shape[2] == 6  # prefill: the mask does it
    cache.position = 6
    step = torch.full((1, 1, 1, 1), 6.0)
    assert cache.update(step, step, 0)[0].flatten().tolist() == [4.0, 5.0, 6.0]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("keep", [True, False])
@torch.no_grad()
def test_a_layer_alone_runs_with_activations_of_the_right_size(parent, phase, keep):
    for option in (parent.blocks[0].attention, parent.blocks[0].ffn):
        layer = build(parent.model, option).eval()
        out = layer_call(parent.model, layer, phase, batch=2, length=6, keep=keep)()
        assert out.shape == (2, 6 if phase == "prefill" else 1, 32)
        assert out.isfinite().all()
