"""Shapes of vision models: convolutions (stem, detector stages) and ViT blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from adaptive.core.cost.block import Block, activation_dtype, dtype_bytes, register
from adaptive.core.cost.shapes import FFN, Attention
from adaptive.core.cost.stack import Composite


@register
@dataclass(frozen=True)
class Conv2d(Block):
    """A square convolution, padded so that the map shrinks by ``stride`` alone.

    ``length`` is the number of pixels of the input map; the output has ``length / stride**2``.
    A patch embedding is ``Conv2d(3, hidden, kernel=patch, stride=patch, bias=True)``.

    Attributes:
        inputs: input channels.
        outputs: output channels.
        norm: a batch norm follows (scale and shift counted; running statistics are buffers).
    """

    kind: ClassVar[str] = "conv2d"
    short: ClassVar[dict[str, str]] = {"inputs": "in", "outputs": "out", "kernel": "k"}

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1
    bias: bool = False
    norm: bool = False

    def _matrix_params(self) -> int:
        return self.inputs // self.groups * self.outputs * self.kernel**2

    def params(self) -> int:
        return self._matrix_params() + (self.bias + 2 * self.norm) * self.outputs

    def token_flops(self) -> int:
        return 2 * self._matrix_params()

    def prefill_flops(self, batch: int, length: int) -> int:
        return super().prefill_flops(batch, self.out_length(length))

    def activation_bytes(self, batch: int, length: int, dtype: str) -> float:
        # The input map and the output map.
        elements = length * self.inputs + self.out_length(length) * self.outputs
        return batch * elements * dtype_bytes(activation_dtype(dtype))

    def prefill_bytes(
        self, batch: int, length: int, dtype: str, kv_dtype: str | None = None
    ) -> float:
        return self.weight_bytes(dtype) + self.activation_bytes(batch, length, dtype)

    def out_length(self, length: int) -> int:
        return length // self.stride**2

    def io_width(self) -> int:
        return self.inputs + self.outputs

    def inner_width(self) -> int:
        return self.inputs + self.outputs


@register
@dataclass(frozen=True)
class VitBlock(Composite):
    """A pre-norm ViT encoder block (LayerNorm, biases everywhere, GELU MLP); no KV cache.

    Attributes:
        layer_scale: a learned scale per channel after each of the two branches.
    """

    kind: ClassVar[str] = "vit_block"
    short: ClassVar[dict[str, str]] = {"hidden": "h", "intermediate": "i"}

    hidden: int
    heads: int
    intermediate: int
    layer_scale: bool = False

    def members(self) -> tuple[Block, ...]:
        head_dim = self.hidden // self.heads
        attention = Attention(
            self.hidden,
            self.heads,
            self.heads,
            head_dim,
            bias=True,
            out_bias=True,
            norm_bias=True,
            cached=False,
        )
        ffn = FFN(self.hidden, self.intermediate, gated=False, bias=True, norm_bias=True)
        return attention, ffn

    def params(self) -> int:
        return super().params() + 2 * self.layer_scale * self.hidden

    def weight_bytes(self, dtype: str) -> float:
        scales = 2 * self.layer_scale * self.hidden
        return super().weight_bytes(dtype) + scales * dtype_bytes(dtype)
