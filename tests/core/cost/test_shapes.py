"""Parameter counts to the last one, names that read back, laws of the counts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.cost import (
    BLOCKS,
    FFN,
    Attention,
    Conv2d,
    Embedding,
    Head,
    Linear,
    NoOp,
    Norm,
    Stack,
    VitBlock,
    parse_block,
)
from adaptive.core.cost.models import MODELS
from adaptive.core.errors import UserError

LLAMA_8B = MODELS["llama-3-8b"].stack()  # parameters of published models: test_models.py


def test_vit_base_without_its_classifier():
    # torchvision's vit_b_16 has 86,567,656 parameters, of which 769,000 are the classifier.
    blocks = tuple([VitBlock(768, 12, 3072)] * 12)
    stem = Conv2d(3, 768, kernel=16, stride=16, bias=True)
    stack = Stack((stem, Embedding(1, 768, positions=197), *blocks, Norm(768, bias=True)))
    assert stack.params() == 86_567_656 - 769_000


def test_kv_cache_of_llama_8b():
    # 2 (K and V) x 8 heads x 128 wide x 2 bytes x 32 layers = 128 KiB a token.
    assert LLAMA_8B.kv_bytes_per_token("bf16") == 131_072
    assert LLAMA_8B.kv_bytes_per_token("fp8") == 65_536
    # The config's head_dim decides, not hidden / heads (Qwen3-0.6B: 1024, 16 heads of 128).
    assert Attention(1024, 16, 8, 128).kv_bytes_per_token("bf16") == 4096


def test_weight_bytes_by_dtype():
    block = FFN(4096, 14336)
    assert block.weight_bytes("fp32") == 4 * block.params()
    assert block.weight_bytes("int4") == block.params() / 2
    with pytest.raises(UserError, match="unknown dtype 'float32'"):
        block.weight_bytes("float32")


def test_a_tied_head_is_read_but_not_stored():
    tied, untied = Head(64, 1000, tied=True), Head(64, 1000)
    assert untied.params() - tied.params() == 64_000
    assert tied.decode_bytes(1, 9, "fp32") == untied.decode_bytes(1, 9, "fp32")


def test_generation_needs_the_last_logits_only():
    assert Head(64, 1000).prefill_flops(2, 50) == 2 * 2 * 64 * 1000
    assert Head(64, 1000, every_position=True).prefill_flops(2, 50) == 50 * 2 * 2 * 64 * 1000


EXAMPLES = {
    "attention": Attention(64, 8, 2, 16, bias=True, qk_norm=True),
    "ffn": FFN(64, 128, gated=False, norm=False),
    "linear": Linear(64, 64, bias=True),
    "noop": NoOp(),
    "norm": Norm(64),
    "embedding": Embedding(100, 64),
    "head": Head(64, 100, tied=True),
    "conv2d": Conv2d(3, 8, kernel=3, stride=2, norm=True),
    "vit_block": VitBlock(64, 4, 256, layer_scale=True),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_keys_read_back(kind):
    block = EXAMPLES[kind]
    assert parse_block(block.key()) == block
    assert re.fullmatch(rf"{kind}\([^()]*\)", block.key())


def test_key_is_stable():
    assert Attention(4096, 32, 8, 128).key() == "attention(h=4096,heads=32,kv=8,d=128)"
    assert FFN(64, 128, gated=False).key() == "ffn(h=64,i=128,gated=0)"


@pytest.mark.parametrize(
    "key", ["ffn", "ffn(h=64)", "ffn(h=64,i=x)", "ffn(h=64,i=2,z=1)", "f(h=1)"]
)
def test_bad_keys_are_refused(key):
    with pytest.raises(UserError):
        parse_block(key)


@pytest.mark.parametrize("kv_heads", [0, 3])
def test_kv_heads_must_divide(kv_heads):
    with pytest.raises(UserError, match="divisor of heads=8"):
        Attention(64, 8, kv_heads, 16)


@pytest.mark.parametrize("kind", BLOCKS)
@given(batch=st.integers(1, 64), context=st.integers(0, 5000))
def test_decode_counts_are_affine_in_the_context(kind, batch, context):
    block = EXAMPLES[kind]
    for count in (block.decode_flops, lambda b, c: block.decode_bytes(b, c, "bf16")):
        step = count(batch, 1) - count(batch, 0)
        assert count(batch, context) == count(batch, 0) + context * step


@pytest.mark.parametrize("kind", BLOCKS)
@given(batch=st.integers(1, 8), length=st.integers(1, 300))
def test_one_decode_step_is_the_prefill_of_one_token(kind, batch, length):
    block = EXAMPLES[kind]
    assert block.decode_flops(batch, 0) == block.prefill_flops(batch, 1) or kind == "conv2d"
    # A batch reads the weights once, however many sequences it has.
    alone = batch * block.prefill_bytes(1, length, "bf16")
    assert block.prefill_bytes(batch, length, "bf16") <= alone


def test_a_stack_shrinks_its_maps_on_the_way():
    stack = Stack((Conv2d(3, 8, 3, stride=2), Conv2d(8, 16, 3, stride=2)))
    assert stack.out_length(64 * 64) == 16 * 16
    assert stack.prefill_flops(1, 64 * 64) == 2 * (32 * 32 * 27 * 8 + 16 * 16 * 72 * 16)
    assert stack.activation_bytes(1, 64 * 64, "fp32") == 4 * (64 * 64 * 3 + 32 * 32 * 8)
