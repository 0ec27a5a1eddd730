"""What a shape describes, with weights: the modules that are timed, and of which engines are made.

Sub-blocks of transformers take the residual stream and what is still to be added to it, and
return both: the addition runs in one kernel with the next norm, as inference servers have it.

Shapes: B sequences, T tokens, M = B * T, H hidden size, N query heads, K key-value heads, D head
size, C tokens that a KV cache holds, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from adaptive.core.cost.block import Block
from adaptive.core.cost.shapes import FFN, Attention, Embedding, Head, Linear, NoOp, Norm
from adaptive.core.cost.stack import Composite
from adaptive.core.cost.vision import Conv2d, VitBlock
from adaptive.core.engine import ops
from adaptive.core.engine.matrix import InputNorm, Matrix, Stream
from adaptive.core.errors import UserError

TORCH_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,  # of the activations; matrices are quantised
}
"""Dtypes of `core.cost` that engines run, to torch's."""


@dataclass
class KVCache:
    """Keys and values of one attention block, in buffers of fixed size [B, K, C, D]."""

    keys: torch.Tensor
    values: torch.Tensor

    @staticmethod
    def empty(
        block: Attention, batch: int, capacity: int, dtype: str, device: str | torch.device
    ) -> KVCache:
        """Room for ``capacity`` tokens a sequence."""
        shape = (batch, block.kv_heads, capacity, block.head_dim)
        options: dict[str, Any] = {"dtype": TORCH_DTYPES[dtype], "device": device}
        # Zeros, not garbage: masked-out keys still enter products.
        return KVCache(torch.zeros(shape, **options), torch.zeros(shape, **options))

    @property
    def nbytes(self) -> int:
        """Bytes of both buffers."""
        return self.keys.nbytes + self.values.nbytes


@dataclass
class Step:
    """One forward of equal sequences.

    Attributes:
        batch: B.
        cos_TD, sin_TD: rotary embedding of the new tokens.
        positions_T: their positions, on the device.
        decode: whether they attend to the cache (else causally to each other).
        attended: tokens of the cache that a decode step sees, the new one included.
        mask: additive, [1, 1, 1, attended]; None where all of them count.
        slack: how many of the last attended tokens the mask may hide.
    """

    batch: int
    cos_TD: torch.Tensor
    sin_TD: torch.Tensor
    positions_T: torch.Tensor
    decode: bool
    attended: int = 0
    mask: torch.Tensor | None = None
    slack: int = 0

    def window(self, size: int) -> tuple[slice, torch.Tensor | None]:
        """What a decode step sees through a sliding window (0: everything): slots and mask."""
        first = max(0, self.attended - self.slack - size) if size else 0
        slots = slice(first, self.attended)
        if self.mask is None:
            return slots, None
        mask = self.mask[..., slots]
        if first or (size and size < self.attended):
            index = torch.arange(first, self.attended, device=mask.device)
            mask = mask.masked_fill(index <= self.positions_T - size, float("-inf"))
        return slots, mask

    def window_mask(self, size: int) -> torch.Tensor:
        """What a prefill sees through a sliding window: [T, T], True where it looks."""
        distance = self.positions_T[:, None] - self.positions_T
        return (distance >= 0) & (distance < size)


class AttentionModule(nn.Module):
    """Grouped-query attention: queries, keys and values from one product."""

    def __init__(self, block: Attention, fp8: bool, like: torch.Tensor):
        super().__init__()
        self.block, self.fp8 = block, fp8
        width = block.q_width + 2 * block.kv_width
        self.norm = InputNorm(block.hidden, block.norm, block.norm_bias, fp8, like)
        self.qkv = Matrix(block.hidden, width, block.bias, fp8, like)
        self.out = Matrix(block.q_width, block.hidden, block.out_bias, fp8, like)
        if block.qk_norm:
            ones = like.new_ones(block.head_dim)
            self.q_norm = nn.Parameter(ones, requires_grad=False)
            self.k_norm = nn.Parameter(ones.clone(), requires_grad=False)

    def forward(self, stream: Stream, step: Step, cache: KVCache | None = None) -> Stream:
        x_MH, normed = self.norm(stream)
        o_MX = self.attend(self.qkv(normed), step, cache)
        return x_MH, self.out(ops.operand(o_MX, True) if self.fp8 else o_MX)

    def attend(self, qkv_MX: torch.Tensor, step: Step, cache: KVCache | None) -> torch.Tensor:
        """The heads' outputs side by side, [M, N * D]."""
        block = self.block
        heads = qkv_MX.view(step.batch, -1, block.heads + 2 * block.kv_heads, block.head_dim)
        q_BTND, k_BTKD, v_BTKD = heads.split([block.heads, block.kv_heads, block.kv_heads], 2)
        if block.qk_norm:
            q_BTND = ops.head_norm(q_BTND, self.q_norm, self.norm.eps)
            k_BTKD = ops.head_norm(k_BTKD, self.k_norm, self.norm.eps)
        v_BKTD, grouped = v_BTKD.transpose(1, 2), block.kv_heads < block.heads
        if not block.cached:  # an encoder
            q_BNTD, k_BKTD = q_BTND.transpose(1, 2), k_BTKD.transpose(1, 2)
            o_BNTD = F.scaled_dot_product_attention(q_BNTD, k_BKTD, v_BKTD, enable_gqa=grouped)
            return o_BNTD.transpose(1, 2).reshape(len(qkv_MX), -1)
        q_BNTD = ops.rotate(q_BTND, step.cos_TD, step.sin_TD)
        k_BKTD = ops.rotate(k_BTKD, step.cos_TD, step.sin_TD)
        if cache is not None:
            cache.keys.index_copy_(2, step.positions_T, k_BKTD)
            cache.values.index_copy_(2, step.positions_T, v_BKTD)
        if step.decode:
            assert cache is not None, "a decode step needs its cache"
            slots, mask = step.window(block.window)
            o_BNTD = _attend_one(q_BNTD, cache.keys[:, :, slots], cache.values[:, :, slots], mask)
        else:
            windowed = 0 < block.window < len(step.positions_T)
            o_BNTD = F.scaled_dot_product_attention(
                q_BNTD,
                k_BKTD,
                v_BKTD,
                attn_mask=step.window_mask(block.window) if windowed else None,
                is_causal=not windowed,
                enable_gqa=grouped,
            )
        return o_BNTD.transpose(1, 2).reshape(len(qkv_MX), -1)


def _attend_one(
    q_BN1D: torch.Tensor,
    keys_BKCD: torch.Tensor,
    values_BKCD: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of one new token a sequence, [B, N, 1, D]."""
    if q_BN1D.is_cuda:
        return F.scaled_dot_product_attention(
            q_BN1D, keys_BKCD, values_BKCD, attn_mask=mask, enable_gqa=True
        )
    # On the CPU torch would copy keys and values to as many heads as there are queries. The
    # queries of a group see the same keys, so they can stand where tokens do.
    B, N, _, D = q_BN1D.shape
    q_BKGD = q_BN1D.reshape(B, keys_BKCD.shape[1], -1, D)
    o_BKGD = F.scaled_dot_product_attention(q_BKGD, keys_BKCD, values_BKCD, attn_mask=mask)
    return o_BKGD.reshape(B, N, 1, D)


class FFNModule(nn.Module):
    """Feed-forward network; gate and up projections are one product."""

    def __init__(self, block: FFN, fp8: bool, like: torch.Tensor):
        super().__init__()
        self.fp8 = fp8
        self.activation = ops.silu_gate if block.gated else ops.gelu
        width = (1 + block.gated) * block.intermediate
        self.norm = InputNorm(block.hidden, block.norm, block.norm_bias, fp8, like)
        self.up = Matrix(block.hidden, width, block.bias, fp8, like)
        self.down = Matrix(block.intermediate, block.hidden, block.bias, fp8, like)

    def forward(self, stream: Stream, step: Step, cache: KVCache | None = None) -> Stream:
        x_MH, normed = self.norm(stream)
        return x_MH, self.down(self.activation(self.up(normed), self.fp8))


class LinearModule(nn.Module):
    """A norm and one matrix."""

    def __init__(self, block: Linear, fp8: bool, like: torch.Tensor):
        super().__init__()
        self.norm = InputNorm(block.inputs, block.norm, block.norm_bias, fp8, like)
        self.matrix = Matrix(block.inputs, block.outputs, block.bias, fp8, like)

    def forward(self, stream: Stream, step: Step, cache: KVCache | None = None) -> Stream:
        x_MH, normed = self.norm(stream)
        return x_MH, self.matrix(normed)


class NormModule(nn.Module):
    """The norm after the last block of an encoder: the stream summed up, and its norm."""

    def __init__(self, block: Norm, fp8: bool, like: torch.Tensor):
        super().__init__()
        self.norm = InputNorm(block.hidden, True, block.bias, False, like)

    def forward(self, stream: Stream, step: Step, cache: KVCache | None = None) -> Stream:
        x_MH, normed_MH = self.norm(stream)
        assert isinstance(normed_MH, torch.Tensor), "norms that stand alone are never quantised"
        return x_MH, normed_MH


class EmbeddingModule(nn.Module):
    """Token embedding, and learned positions where it has them; never quantised."""

    def __init__(self, block: Embedding, fp8: bool, like: torch.Tensor):
        super().__init__()
        weight = like.new_empty(block.vocab, block.hidden).normal_()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.positions: torch.Tensor | None = None
        if block.positions:
            positions = like.new_empty(block.positions, block.hidden).normal_()
            self.positions = nn.Parameter(positions, requires_grad=False)

    def forward(self, ids_M: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        x_MH = F.embedding(ids_M, self.weight)
        if self.positions is None:
            return x_MH
        x_BTH = x_MH.view(-1, len(positions_T), x_MH.shape[-1])
        return (x_BTH + F.embedding(positions_T, self.positions)).view_as(x_MH)


class HeadModule(nn.Module):
    """Final norm, logits, and the choice of the next token; never quantised."""

    def __init__(self, block: Head, fp8: bool, like: torch.Tensor):
        super().__init__()
        self.every_position = block.every_position
        self.norm = InputNorm(block.hidden, block.norm, block.norm_bias, False, like)
        self.matrix = Matrix(block.hidden, block.vocab, block.bias, False, like)

    def forward(self, stream: Stream, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [B, V] of the last positions (or [M, V]), the likeliest tokens [B] (or [M])."""
        if not self.every_position:
            x_MH, delta_MH = stream
            x_BH = _last(x_MH, batch)
            stream = (x_BH, None if delta_MH is None else _last(delta_MH, batch))
        logits = self.matrix(self.norm(stream)[1])
        return logits, logits.argmax(-1)


def _last(x_MH: torch.Tensor, batch: int) -> torch.Tensor:
    """The last position of each sequence, [B, H]."""
    return x_MH.view(batch, -1, x_MH.shape[-1])[:, -1]


class ConvModule(nn.Module):
    """A convolution, with a ReLU where it has a batch norm.

    The norm is folded into the convolution, as for inference: its scale into the weights, its
    shift into the bias. So there is one number a channel where the shape counts a scale, a shift
    and, before them, a bias.
    """

    def __init__(self, block: Conv2d, fp8: bool, like: torch.Tensor):
        super().__init__()
        # An even kernel that keeps the map's size needs one more pixel on one side.
        self.uneven = block.stride == 1 and block.kernel % 2 == 0
        padding = max(block.kernel - block.stride + 1 - self.uneven, 0) // 2
        conv = nn.Conv2d(
            block.inputs,
            block.outputs,
            block.kernel,
            block.stride,
            padding,
            groups=block.groups,
            bias=block.bias or block.norm,
        )
        self.relu = block.norm
        conv.requires_grad_(False).to(like.device, like.dtype)
        conv.weight.data = conv.weight.to(memory_format=torch.channels_last)
        self.conv = conv

    def forward(self, x_BCYX: torch.Tensor) -> torch.Tensor:
        y_BCYX = self.conv(F.pad(x_BCYX, (0, 1, 0, 1)) if self.uneven else x_BCYX)
        return F.relu(y_BCYX) if self.relu else y_BCYX


class Sequence(nn.Module):
    """Sub-blocks of an encoder one after the other: a ViT block, with its layer scales."""

    def __init__(self, block: Composite, fp8: bool, like: torch.Tensor):
        super().__init__()
        members = [member for member in block.members() if not isinstance(member, NoOp)]
        for member in members:
            encodes = isinstance(member, Attention) and not member.cached
            if not encodes and not isinstance(member, FFN | Linear | Composite):
                raise UserError(f"no module runs {member.key()} inside a {block.kind}")
        self.parts = nn.ModuleList([_module(member, fp8, like) for member in members])
        self.scales: nn.ParameterList | None = None
        if isinstance(block, VitBlock) and block.layer_scale:
            ones = [like.new_ones(block.hidden) for _ in members]
            self.scales = nn.ParameterList([nn.Parameter(one, requires_grad=False) for one in ones])

    def forward(self, stream: Stream, step: Step, cache: KVCache | None = None) -> Stream:
        for index, part in enumerate(self.parts):
            x_MH, delta_MH = part(stream, step)
            stream = x_MH, delta_MH if self.scales is None else delta_MH * self.scales[index]
        return stream


MODULES: dict[type[Block], Callable[..., nn.Module]] = {
    Attention: AttentionModule,
    FFN: FFNModule,
    Linear: LinearModule,
    Norm: NormModule,
    Embedding: EmbeddingModule,
    Head: HeadModule,
    Conv2d: ConvModule,
}
"""Shapes to what runs them; composites run as the sequence of their members."""


def build(block: Block, dtype: str, device: str | torch.device) -> Any:
    """A module with random weights for a shape: time does not depend on their values.

    Raises:
        UserError: nothing here runs the dtype, the shape, or the one in the other.
    """
    if dtype not in TORCH_DTYPES:
        raise UserError(f"dtype={dtype} cannot be run, choose one of {', '.join(TORCH_DTYPES)}")
    like = torch.empty(0, dtype=TORCH_DTYPES[dtype], device=device)
    return _module(block, dtype == "fp8", like).eval()


def _module(block: Block, fp8: bool, like: torch.Tensor) -> nn.Module:
    if isinstance(block, Composite):
        return Sequence(block, fp8, like)
    if type(block) not in MODULES:
        known = ", ".join(shape.kind for shape in MODULES)
        raise UserError(f"no module runs {block.key()}, choose one of {known}")
    return MODULES[type(block)](block, fp8, like)
