"""Attention that weighs its keys, in the place of timm's."""

from __future__ import annotations

import pytest
import tiny_vits
import torch
from torch import nn
from torch.nn import functional as F

from adaptive.quadformer.attention import (
    EXTRA,
    KINDS,
    Keys,
    TokenAttention,
    adopt,
    attend,
    bias_channels,
)


def _qkv(length: int, head_dim: int = 32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, length, head_dim) for _ in range(3)]


@pytest.mark.parametrize("head_dim", [16, 32, 48, 64])
def test_a_token_of_weight_four_equals_four_copies(head_dim):
    q, k, v = _qkv(7, head_dim)
    weight = torch.tensor([1.0, 4.0, 1.0, 16.0, 1.0, 1.0, 4.0]).expand(2, -1)
    found = attend(q, k, v, Keys().biased(weight.log(), head_dim))
    copies = weight[0].long()
    many = [x.repeat_interleave(copies, 2) for x in (k, v)]
    torch.testing.assert_close(
        found, F.scaled_dot_product_attention(q, *many), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_dim", [32, 48, 64, 72])
def test_biases_survive_half_precision(head_dim, dtype):
    bias = torch.tensor([[0.0, 4.0, 16.0, 64.0, 2.7, 3.14]]).clamp(min=1).log()
    query, key = bias_channels(bias, head_dim)
    assert query.shape == (EXTRA,) and key.shape == (1, 6, EXTRA)
    product = key.to(dtype).double() @ query.to(dtype).double() / head_dim**0.5
    torch.testing.assert_close(product, bias.double(), rtol=1e-6, atol=1e-6)


def test_half_precision_attends_as_single_precision_does():
    q, k, v = _qkv(9)
    weight = torch.tensor([1.0, 16, 1, 4, 4, 1, 16, 1, 1]).expand(2, -1)
    keys = Keys().biased(weight.log(), 32)
    half = attend(*(x.bfloat16() for x in (q, k, v)), keys)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), attend(q, k, v, keys), rtol=0.03, atol=0.03)


def test_padding_is_not_seen():
    q, k, v = _qkv(6)
    real = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    weight = torch.full((2, 6), 4.0)
    found = attend(q, k, v, Keys(real_BL=real).biased(weight.log(), 32))
    alone = F.scaled_dot_product_attention(q[0, :, :4], k[0, :, :4], v[0, :, :4])
    torch.testing.assert_close(found[0, :, :4], alone)


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "eva_large_patch14_196", "eva02_tiny_patch14_224"]
    + ["vit_small_patch16_rope_mixed_ape_224", "vit_small_patch16_dinov3"],
)
def test_it_takes_the_place_of_timms(name):
    vit = tiny_vits.tiny_vit(name)
    assert all(type(block.attn) in KINDS for block in vit.blocks)
    image = torch.randn(2, 3, *vit.patch_embed.img_size)
    names, before = list(vit.state_dict()), vit(image)
    weight = next(vit.blocks[0].attn.parameters())
    assert adopt(vit.blocks) and adopt(vit.blocks)
    assert all(isinstance(block.attn, TokenAttention) for block in vit.blocks)
    assert list(vit.state_dict()) != [] and list(vit.state_dict()) == names
    assert next(vit.blocks[0].attn.parameters()) is weight
    torch.testing.assert_close(vit(image), before, rtol=1e-5, atol=1e-5)


def test_unknown_attention_stays():
    class Other(nn.Module):
        attn = nn.Identity()

    blocks = nn.Sequential(Other())
    assert not adopt(blocks) and type(blocks[0].attn) is nn.Identity
