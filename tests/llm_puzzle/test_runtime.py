"""An engine computes what the model computes, with caches of fixed size."""

from __future__ import annotations

import pytest
import torch

from adaptive.core.engine import Generation
from adaptive.llm_puzzle.runtime import engine_of

PROMPT, STEPS = 8, 5  # longer than the window of 5, and past it again while decoding


@torch.no_grad()
def test_prefill_and_decode_equal_the_model(child):
    ids_BT = torch.randint(3, child.config.vocab_size, (3, PROMPT + STEPS))
    wanted = child(ids_BT, use_cache=False).logits
    engine = engine_of(child)
    caches = engine.make_caches(len(ids_BT), PROMPT + STEPS)
    found = [engine.prefill(ids_BT[:, :PROMPT], caches)[0]]
    for position in range(PROMPT, PROMPT + STEPS):
        found.append(engine.decode(ids_BT[:, position], position, caches)[0])
    torch.testing.assert_close(torch.stack(found, 1), wanted[:, PROMPT - 1 :], rtol=0, atol=1e-5)


@torch.no_grad()
def test_decoding_from_the_first_token_equals_the_model(child):
    ids_BT = torch.randint(3, child.config.vocab_size, (2, PROMPT))
    engine = engine_of(child)
    caches = engine.make_caches(2, PROMPT)
    found = [engine.decode(ids_BT[:, i], i, caches)[0] for i in range(PROMPT)]
    wanted = child(ids_BT, use_cache=False).logits
    torch.testing.assert_close(torch.stack(found, 1), wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_prefill_alone_keeps_nothing(child):
    ids_BT = torch.randint(3, child.config.vocab_size, (2, PROMPT))
    found, _ = engine_of(child).prefill(ids_BT)
    torch.testing.assert_close(found, child(ids_BT).logits[:, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"qkv_bias": True, "o_bias": True, "mlp_bias": True},
        {"qk_norm": True},
        {"hidden_act": "gelu"},
        {"tie_word_embeddings": True},
        {"head_dim": 16},
        {"rms_norm_eps": 0.1},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}},
    ],
    ids=lambda changes: next(iter(changes)),
)
@torch.no_grad()
def test_what_architectures_add(make_child, changes):
    model = make_child("mixed heads", **changes)
    for name, weight in model.named_parameters():  # biases start at zero and would not be seen
        if name.endswith(("bias", "norm.weight")):
            weight.normal_(1.0)
    ids_BT = torch.randint(3, model.config.vocab_size, (2, PROMPT))
    found, _ = engine_of(model).prefill(ids_BT)
    torch.testing.assert_close(found, model(ids_BT).logits[:, -1], rtol=0, atol=1e-4)


def test_generation_equals_the_models(child):
    ids_BT = torch.randint(3, child.config.vocab_size, (2, PROMPT))
    wanted = child.generate(
        ids_BT, max_new_tokens=STEPS, do_sample=False, pad_token_id=0, eos_token_id=-1
    )
    found = Generation(engine_of(child), 2, PROMPT, STEPS).run(ids_BT)
    assert found.tolist() == wanted[:, PROMPT:].tolist()
