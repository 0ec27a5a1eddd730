"""Matrices of 32, 16 or 8 bits, and the norm that goes before them.

Shapes: M tokens, H hidden size, X any width, R rows of a matrix.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from adaptive.core.engine import ops
from adaptive.core.engine.ops import Operand
from adaptive.core.errors import UserError

Stream = tuple[torch.Tensor, torch.Tensor | None]
"""The residual stream [M, H], and what the last sub-block adds to it."""

CHUNK_ELEMENTS = 2**24  # of a matrix that are quantised at once


class Matrix(nn.Module):
    """A matrix product with weights of 32, 16 or 8 bits.

    Eight bits are e4m3 with a scale a row of the weight and, made on the fly, a scale a token.

    Args:
        inputs, outputs: widths.
        bias: adds one.
        fp8: quantised.
        like: gives dtype and device.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool, fp8: bool, like: torch.Tensor):
        super().__init__()
        self.fp8, self.dtype = fp8, like.dtype
        if fp8 and (inputs % 16 or outputs % 16):
            raise UserError(f"fp8 needs widths in multiples of 16, not {inputs} x {outputs}")
        weight = torch.empty(
            outputs, inputs, dtype=ops.FP8 if fp8 else like.dtype, device=like.device
        )
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(like.new_zeros(outputs), requires_grad=False) if bias else None
        if fp8:
            scale = torch.empty(1, outputs, device=like.device)
            self.scale_1X = nn.Parameter(scale, requires_grad=False)
        for rows in self._chunks():
            size = len(weight[rows]), inputs
            self._put(rows, like.new_empty(size).normal_(std=inputs**-0.5))

    def _chunks(self) -> Iterator[slice]:
        """Rows filled at once: to quantise a whole matrix takes several times its size."""
        size = max(1, CHUNK_ELEMENTS // self.weight.shape[1])
        for first in range(0, len(self.weight), size):
            yield slice(first, first + size)

    @torch.no_grad()
    def _put(self, rows: slice, values_RX: torch.Tensor) -> None:
        if self.fp8:
            values_RX, scale_R1 = ops._operand(values_RX, True)
            self.scale_1X[0, rows] = scale_R1[:, 0]
        self.weight[rows] = values_RX

    @torch.no_grad()
    def load(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """Takes values over, quantising them where that is asked for."""
        assert weight.shape == self.weight.shape, (weight.shape, self.weight.shape)
        for rows in self._chunks():
            self._put(rows, weight[rows])
        if bias is not None:
            assert self.bias is not None, "this shape has no bias"
            self.bias.copy_(bias)

    def forward(self, x: Operand) -> torch.Tensor:
        if not isinstance(x, tuple):
            return F.linear(x, self.weight, self.bias)
        values, scale_M1 = x
        product = torch._scaled_mm(
            values,
            self.weight.t(),
            scale_a=scale_M1,
            scale_b=self.scale_1X,
            out_dtype=self.dtype,
            use_fast_accum=True,
        )
        return product if self.bias is None else product + self.bias


class InputNorm(nn.Module):
    """The residual addition and, where there is one, the norm with which a sub-block begins."""

    def __init__(self, width: int, norm: bool, bias: bool, fp8: bool, like: torch.Tensor):
        super().__init__()
        self.fp8, self.eps = fp8, 1e-6
        self.weight: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None
        if norm:
            self.weight = nn.Parameter(like.new_ones(width), requires_grad=False)
        if norm and bias:
            self.bias = nn.Parameter(like.new_zeros(width), requires_grad=False)

    def forward(self, stream: Stream) -> tuple[torch.Tensor, Operand]:
        x_MH, delta_MH = stream
        if self.weight is None:
            x_MH = x_MH if delta_MH is None else x_MH + delta_MH
            return x_MH, ops.operand(x_MH, True) if self.fp8 else x_MH
        if delta_MH is None:
            return x_MH, ops.norm(x_MH, self.weight, self.bias, self.eps, self.fp8)
        return ops.add_norm(x_MH, delta_MH, self.weight, self.bias, self.eps, self.fp8)
