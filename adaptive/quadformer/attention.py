"""Attention over tokens of different areas, and over images of different numbers of tokens.

A patch of 16 cells stands for 16 tokens. Attention that treats it so adds the log of the area to
its logits: ``softmax(q k / sqrt(d) + log area)``, the same as 16 copies of the key. A bias that
depends on the key alone is a product of further channels, a constant on the query's side and the
bias on the key's. So no mask is needed, and flash kernels take it.

Shapes: B images, L tokens with prefix tokens, D width, H heads, E channels of a head, X further
channels; packed images are one row, B = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from timm.layers import Attention, AttentionRope
from timm.models.eva import EvaAttention
from torch import Tensor, nn
from torch.nn import functional as F

EXTRA = 8  # channels by which heads are widened: kernels want multiples of 8
KINDS = (Attention, AttentionRope, EvaAttention)


@dataclass(frozen=True)
class Keys:
    """What attention is told of its keys besides their content.

    Attributes:
        query_X: the further channels of every query; None: no bias.
        bias_BLX: the further channels of the keys.
        real_BL: False where a row is padded; None: nowhere.
        offsets: where each image of a packed row begins, and the number of all tokens, int32;
            None: each row is an image.
        longest: a bound of the tokens of a packed image.
    """

    query_X: Float[Tensor, " X"] | None = None
    bias_BLX: Float[Tensor, "B L X"] | None = None
    real_BL: Bool[Tensor, "B L"] | None = None
    offsets: Int[Tensor, " images+1"] | None = None
    longest: int = 0

    def biased(self, bias_BL: Float[Tensor, "B L"], head_dim: int) -> Keys:
        """The same keys with a bias each, for heads of so many channels."""
        query_X, bias_BLX = bias_channels(bias_BL, head_dim)
        return replace(self, query_X=query_X, bias_BLX=bias_BLX)


def bias_channels(
    bias_BL: Float[Tensor, "B L"], head_dim: int
) -> tuple[Float[Tensor, " X"], Float[Tensor, "B L X"]]:
    """Channels whose product, over ``sqrt(head_dim)``, is a bias of the keys.

    The bias is split into three parts of 8 bits, which are exact in half precision too; so is the
    query's constant, a power of two near ``sqrt(head_dim)``.
    """
    scale = math.sqrt(head_dim)
    constant = 2.0 ** round(math.log2(scale))
    rest_BL, parts = bias_BL.float() * (scale / constant), []
    for _ in range(3):
        parts.append(rest_BL.bfloat16().float())
        rest_BL = rest_BL - parts[-1]
    parts += [torch.zeros_like(rest_BL)] * (EXTRA - len(parts))
    query_X = torch.full((EXTRA,), constant, device=bias_BL.device)
    return query_X, torch.stack(parts, -1)


class TokenAttention(nn.Module):
    """timm's attention, with its parameters, for tokens that differ in weight.

    It takes the place of the module whose parameters it holds: names in a state dict stay.

    Args:
        attention: of one of :data:`KINDS`.
    """

    # Those of timm's modules; which of them there are differs.
    qkv: Any
    q_proj: Any
    k_proj: Any
    v_proj: Any
    q_bias: Any
    k_bias: Any
    v_bias: Any
    q_norm: Any
    k_norm: Any
    attn_drop: Any
    proj: Any
    proj_drop: Any

    def __init__(self, attention: Any):
        super().__init__()
        self._modules.update(attention._modules)
        self._parameters.update(attention._parameters)
        self._buffers.update(attention._buffers)
        self._non_persistent_buffers_set |= attention._non_persistent_buffers_set
        self.num_heads: int = attention.num_heads
        self.num_kv_heads: int = getattr(attention, "num_kv_heads", attention.num_heads)
        self.rotate_half: bool = getattr(attention, "rotate_half", False)
        fused = self.qkv
        width = fused.out_features // 3 if fused is not None else self.q_proj.out_features
        self.head_dim: int = width // self.num_heads
        self.train(attention.training)

    def forward(
        self,
        x_BLD: Tensor,
        rope: Tensor | None = None,
        attn_mask: Keys | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """As timm's modules are called by their blocks.

        Args:
            x_BLD: tokens.
            rope: sine and cosine of every token, or of all but prefix tokens, for each head or all.
            attn_mask: what is known of the keys.
            is_causal: False; timm's blocks hand it on.
        """
        assert not is_causal
        q, k, v = self.project(x_BLD, rope)
        return self.mix(x_BLD, q, k, v, attn_mask or Keys())

    def project(self, x_BLD: Tensor, rope: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [B, H, L, E] each."""
        if self.qkv is None:
            q, k, v = self.q_proj(x_BLD), self.k_proj(x_BLD), self.v_proj(x_BLD)
        elif getattr(self, "q_bias", None) is None:
            q, k, v = self.qkv(x_BLD).chunk(3, -1)
        else:  # EVA's keys have no bias of their own
            bias = torch.cat([self.q_bias, self.k_bias, self.v_bias])
            q, k, v = F.linear(x_BLD, self.qkv.weight, bias).chunk(3, -1)
        q, k, v = (x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for x in (q, k, v))
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = (_rotate(x, rope, self.rotate_half) for x in (q, k))
        if self.num_kv_heads < self.num_heads:
            k, v = (x.repeat_interleave(self.num_heads // self.num_kv_heads, 1) for x in (k, v))
        return q, k, v

    def mix(self, x_BLD: Tensor, q: Tensor, k: Tensor, v: Tensor, keys: Keys) -> Tensor:
        """Attention, and what follows it in the module, [B, L, D]."""
        dropout = self.attn_drop.p if self.training else 0.0
        y_BLD = attend(q, k, v, keys, dropout).transpose(1, 2).flatten(2)
        norm, gate = getattr(self, "norm", None), getattr(self, "gate", None)
        y_BLD = norm(y_BLD) if norm is not None else y_BLD
        y_BLD = y_BLD * gate(x_BLD).sigmoid() if gate is not None else y_BLD
        return self.proj_drop(self.proj(y_BLD))


def attend(
    q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, keys: Keys, dropout: float = 0.0
) -> Tensor:
    """Softmax attention of every image over its own tokens, [B, H, L, E]."""
    E = q_BHLE.shape[-1]
    scale = E**-0.5
    if keys.query_X is not None:
        assert keys.bias_BLX is not None
        q_BHLE = _widen(q_BHLE, keys.query_X)
        k_BHLE = _widen(k_BHLE, keys.bias_BLX[:, None])
        v_BHLE = F.pad(v_BHLE, (0, EXTRA))  # flash kernels want one width for all three
    if keys.offsets is not None:
        y_BHLE = _packed(q_BHLE, k_BHLE, v_BHLE, keys.offsets, keys.longest, scale)
    else:
        mask = None if keys.real_BL is None else keys.real_BL[:, None, None]
        y_BHLE = F.scaled_dot_product_attention(
            q_BHLE, k_BHLE, v_BHLE, attn_mask=mask, dropout_p=dropout, scale=scale
        )
    return y_BHLE[..., :E]


def adopt(blocks: Any) -> bool:
    """Puts :class:`TokenAttention` in the place of every attention of a ViT's blocks.

    Returns:
        Whether all of them could be replaced; else none is.
    """
    attentions = [getattr(block, "attn", None) for block in blocks.children()]
    if not all(type(attention) in (*KINDS, TokenAttention) for attention in attentions):
        return False
    for block, attention in zip(blocks.children(), attentions, strict=True):
        if not isinstance(attention, TokenAttention):
            block.attn = TokenAttention(attention)
    return True


def _widen(x_BHLE: Tensor, extra: Tensor) -> Tensor:
    shape = (*x_BHLE.shape[:-1], EXTRA)
    return torch.cat([x_BHLE, extra.to(x_BHLE.dtype).expand(shape)], -1)


def _packed(
    q_1HLE: Tensor, k_1HLE: Tensor, v_1HLE: Tensor, offsets: Tensor, longest: int, scale: float
) -> Tensor:
    """Attention of the images of a packed row, by a kernel that knows where they begin."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (x[0].transpose(0, 1) for x in (q_1HLE, k_1HLE, v_1HLE))
    y_LHE = varlen_attn(q, k, v, offsets, offsets, longest, longest, scale=scale)
    assert isinstance(y_LHE, Tensor)
    return y_LHE.transpose(0, 1)[None]


def _rotate(x_BHLE: Tensor, rope: Tensor, halves: bool) -> Tensor:
    """Turns pairs of channels, neighbours or those half a head apart, by each token's angles.

    Tokens before those that have angles stay: timm gives none for prefix tokens.
    """
    still = x_BHLE.shape[2] - rope.shape[-2]
    if still:
        turned = _rotate(x_BHLE[:, :, still:], rope, halves)
        return torch.cat([x_BHLE[:, :, :still], turned], 2)
    sin, cos = rope.chunk(2, -1)
    if halves:
        first, second = x_BHLE.chunk(2, -1)
        turned = torch.cat([-second, first], -1)
    else:
        turned = torch.stack([-x_BHLE[..., 1::2], x_BHLE[..., ::2]], -1).flatten(-2)
    return (x_BHLE * cos + turned * sin).to(x_BHLE.dtype)
