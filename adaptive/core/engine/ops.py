"""The elementwise work between matrix products: one kernel each on a GPU, plain calls elsewhere.

The compiler fuses what stands in one function here; with dynamic shapes each is compiled a few
times in all, about a second each, however many sizes are measured.

Shapes: M tokens (batch times length), X any width, H hidden size, T tokens of a sequence, N query
heads, K key-value heads, D head size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.nn import functional as F

Function = TypeVar("Function", bound=Callable[..., Any])
Operand = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
"""What enters a matrix product: a tensor, or 8-bit values [M, X] with a scale a row [M, 1]."""

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0  # the largest number that e4m3 holds


def fused(function: Function) -> Function:
    """Compiles a function for CUDA tensors and leaves it as it is for others."""
    compiled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        nonlocal compiled
        if not args[0].is_cuda:
            return function(*args)
        if compiled is None:
            # Types, flags and sizes of one make variants; beyond the limit torch would silently
            # run the plain function.
            limit = torch._dynamo.config.recompile_limit
            torch._dynamo.config.recompile_limit = max(limit, 64)
            compiled = torch.compile(function, dynamic=True)
        return compiled(*args)

    return call  # type: ignore[return-value]


def _operand(x_MX: torch.Tensor, fp8: bool) -> Operand:
    if not fp8:
        return x_MX
    x_MX = x_MX.float()
    scale_M1 = x_MX.abs().amax(-1, keepdim=True).clamp(min=1e-12) / FP8_MAX
    return (x_MX / scale_M1).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale_M1


@fused
def operand(x_MX: torch.Tensor, fp8: bool) -> Operand:
    """``x_MX`` ready to enter a matrix product."""
    return _operand(x_MX, fp8)


def _norm(
    x_MH: torch.Tensor, weight_H: torch.Tensor, bias_H: torch.Tensor | None, eps: float
) -> torch.Tensor:
    f_MH = x_MH.float()
    if bias_H is not None:
        return F.layer_norm(f_MH, weight_H.shape, eps=eps).to(x_MH.dtype) * weight_H + bias_H
    scale = torch.rsqrt(f_MH.square().mean(-1, keepdim=True) + eps)
    return weight_H * (f_MH * scale).to(x_MH.dtype)


@fused
def norm(
    x_MH: torch.Tensor,
    weight_H: torch.Tensor,
    bias_H: torch.Tensor | None,
    eps: float,
    fp8: bool,
) -> Operand:
    """RMSNorm, or LayerNorm where there is a bias."""
    return _operand(_norm(x_MH, weight_H, bias_H, eps), fp8)


@fused
def add_norm(
    x_MH: torch.Tensor,
    delta_MH: torch.Tensor,
    weight_H: torch.Tensor,
    bias_H: torch.Tensor | None,
    eps: float,
    fp8: bool,
) -> tuple[torch.Tensor, Operand]:
    """The residual stream after ``delta_MH`` is added to it, and its norm."""
    x_MH = x_MH + delta_MH
    return x_MH, _operand(_norm(x_MH, weight_H, bias_H, eps), fp8)


def gated(activation: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Operand]:
    """The activation of a gated FFN: the first half of the channels gates the second."""

    @fused
    def gate(gate_up_MX: torch.Tensor, fp8: bool) -> Operand:
        gate, up = gate_up_MX.chunk(2, -1)
        return _operand(activation(gate) * up, fp8)

    return gate


silu_gate = gated(F.silu)


@fused
def gelu(x_MX: torch.Tensor, fp8: bool) -> Operand:
    """The exact GELU of vision transformers."""
    return _operand(F.gelu(x_MX), fp8)


@fused
def head_norm(x_MND: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm over each head (Qwen3)."""
    return _norm(x_MND, weight_D, None, eps)


@fused
def place(
    cos_CD: torch.Tensor, sin_CD: torch.Tensor, position_1: torch.Tensor, attended: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cosines and sines [1, D] of a position, and the additive mask [1, 1, 1, attended] of what it
    may attend to."""
    slots = torch.arange(attended, device=position_1.device)
    zeros = torch.zeros(attended, dtype=cos_CD.dtype, device=position_1.device)
    mask = zeros.masked_fill(slots > position_1, float("-inf"))[None, None, None]
    return cos_CD.index_select(0, position_1), sin_CD.index_select(0, position_1), mask


@fused
def rotate(x_BTND: torch.Tensor, cos_TD: torch.Tensor, sin_TD: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of queries or keys, halves paired as in Llama; out [B, N, T, D]."""
    cos, sin = cos_TD[None, :, None], sin_TD[None, :, None]
    left, right = x_BTND.chunk(2, -1)
    turned = torch.cat((-right, left), -1)
    return (x_BTND * cos + turned * sin).transpose(1, 2)
