"""Shapes of transformer sub-blocks: attention, FFN, their stand-ins, embedding and head.

``norm`` counts the sub-block's own input norm (RMSNorm; LayerNorm with ``norm_bias``), which goes
away with the sub-block: a no-op has none. See ``adaptive.core.cost.block`` for the conventions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from adaptive.core.cost.block import Block, divide, dtype_bytes, register
from adaptive.core.errors import UserError


def norm_params(width: int, norm: bool, bias: bool) -> int:
    """Parameters of an input norm over ``width`` channels."""
    return width * (1 + bias) if norm else 0


@register
@dataclass(frozen=True)
class Attention(Block):
    """Grouped-query self-attention with its input norm.

    Attributes:
        hidden: width of the residual stream.
        heads: query heads.
        kv_heads: key and value heads; divides ``heads``.
        head_dim: width of one head; ``heads * head_dim`` need not equal ``hidden``.
        bias: biases on the query, key and value projections.
        out_bias: bias on the output projection.
        qk_norm: RMSNorm over each head's queries and keys (Qwen3).
        cached: a decoder's, with a KV cache and rotary embedding; False for encoders (ViTs).
        window: of sliding-window attention, in tokens; 0 attends to everything. Prefill is
            counted dense all the same.
    """

    kind: ClassVar[str] = "attention"
    short: ClassVar[dict[str, str]] = {"hidden": "h", "kv_heads": "kv", "head_dim": "d"}
    axes: ClassVar[tuple[str, ...]] = ("kv_heads",)

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    norm: bool = True
    norm_bias: bool = False
    cached: bool = True
    window: int = 0

    def __post_init__(self) -> None:
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise UserError(
                f"kv_heads={self.kv_heads} must be a positive divisor of heads={self.heads}"
            )

    @property
    def q_width(self) -> int:
        """Width of all queries together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all keys together (values have the same)."""
        return self.kv_heads * self.head_dim

    def _matrix_params(self) -> int:
        return 2 * self.hidden * (self.q_width + self.kv_width)

    def params(self) -> int:
        biases = self.bias * (self.q_width + 2 * self.kv_width) + self.out_bias * self.hidden
        norms = norm_params(self.hidden, self.norm, self.norm_bias)
        return self._matrix_params() + biases + norms + self.qk_norm * 2 * self.head_dim

    def token_flops(self) -> int:
        return 2 * self._matrix_params()

    def prefill_flops(self, batch: int, length: int) -> int:
        # Scores and weighted values: two products of length x length x q_width, counted dense.
        return super().prefill_flops(batch, length) + 4 * batch * length**2 * self.q_width

    def decode_flops(self, batch: int, context: int) -> int:
        attended = self._seen(context + 1)
        return super().decode_flops(batch, context) + 4 * batch * attended * self.q_width

    def _seen(self, tokens: int) -> int:
        return min(tokens, self.window) if self.window else tokens

    def kinks(self) -> tuple[int, ...]:
        return (self.window - 1,) if self.window else ()

    def cache_bytes(self, batch: int, length: int, dtype: str) -> float:
        return super().cache_bytes(batch, self._seen(length), dtype)

    def kv_bytes_per_token(self, dtype: str) -> float:
        return 2 * self.kv_width * dtype_bytes(dtype) if self.cached else 0.0

    def io_width(self) -> int:
        return 2 * self.hidden

    def inner_width(self) -> int:
        # All projections, then rotated queries and keys and the heads' outputs beside them;
        # encoders rotate nothing.
        inner = 3 * self.q_width + 3 * self.kv_width
        if not self.cached:
            inner -= self.q_width + self.kv_width
        return 4 * self.hidden + inner

    def operand_width(self) -> int:
        return self.hidden

    def _cut(self, degree: int) -> Self:
        heads, kv_heads = divide(self.heads, degree, "heads"), self.kv_heads
        # Fewer KV heads than devices are held by several of them.
        kv_heads = 1 if degree % kv_heads == 0 else divide(kv_heads, degree, "kv_heads")
        return replace(self, heads=heads, kv_heads=kv_heads)


@register
@dataclass(frozen=True)
class FFN(Block):
    """Feed-forward sub-block with its input norm; ``gated`` is SwiGLU with three matrices."""

    kind: ClassVar[str] = "ffn"
    short: ClassVar[dict[str, str]] = {"hidden": "h", "intermediate": "i"}
    axes: ClassVar[tuple[str, ...]] = ("intermediate",)
    pointwise: ClassVar[bool] = True

    hidden: int
    intermediate: int
    gated: bool = True
    bias: bool = False
    norm: bool = True
    norm_bias: bool = False

    def _matrix_params(self) -> int:
        return (2 + self.gated) * self.hidden * self.intermediate

    def params(self) -> int:
        biases = self.bias * ((1 + self.gated) * self.intermediate + self.hidden)
        return self._matrix_params() + biases + norm_params(self.hidden, self.norm, self.norm_bias)

    def token_flops(self) -> int:
        return 2 * self._matrix_params()

    def io_width(self) -> int:
        return 2 * self.hidden

    def inner_width(self) -> int:
        # The projections to the inner width while their product or activation is made.
        return 4 * self.hidden + (2 + self.gated) * self.intermediate

    def operand_width(self) -> int:
        return self.hidden + self.intermediate

    def _cut(self, degree: int) -> Self:
        return replace(self, intermediate=divide(self.intermediate, degree, "intermediate"))


@register
@dataclass(frozen=True)
class Linear(Block):
    """One matrix with an optional bias, behind its input norm: the linear stand-in of Puzzle."""

    kind: ClassVar[str] = "linear"
    short: ClassVar[dict[str, str]] = {"inputs": "in", "outputs": "out"}
    pointwise: ClassVar[bool] = True

    inputs: int
    outputs: int
    bias: bool = False
    norm: bool = True
    norm_bias: bool = False

    def params(self) -> int:
        norms = norm_params(self.inputs, self.norm, self.norm_bias)
        return self.inputs * self.outputs + self.bias * self.outputs + norms

    def token_flops(self) -> int:
        return 2 * self.inputs * self.outputs

    def io_width(self) -> int:
        return self.inputs + self.outputs

    def inner_width(self) -> int:
        return 4 * self.inputs + self.outputs

    def operand_width(self) -> int:
        return self.inputs

    def _cut(self, degree: int) -> Self:
        return replace(self, outputs=divide(self.outputs, degree, "outputs"))


@register
@dataclass(frozen=True)
class NoOp(Block):
    """A removed sub-block: the residual stream passes by, everything costs nothing."""

    kind: ClassVar[str] = "noop"
    pointwise: ClassVar[bool] = True

    def params(self) -> int:
        return 0

    def token_flops(self) -> int:
        return 0

    def io_width(self) -> int:
        return 0

    def inner_width(self) -> int:
        return 0

    def _cut(self, degree: int) -> Self:
        return self


@register
@dataclass(frozen=True)
class Norm(Block):
    """A norm that belongs to no sub-block: RMSNorm, or LayerNorm with ``bias``."""

    kind: ClassVar[str] = "norm"
    short: ClassVar[dict[str, str]] = {"hidden": "h"}
    pointwise: ClassVar[bool] = True
    quantised: ClassVar[bool] = False

    hidden: int
    bias: bool = False

    def params(self) -> int:
        return norm_params(self.hidden, True, self.bias)

    def token_flops(self) -> int:
        return 0

    def io_width(self) -> int:
        return 2 * self.hidden

    def inner_width(self) -> int:
        return 2 * self.hidden

    def _cut(self, degree: int) -> Self:
        return self


@register
@dataclass(frozen=True)
class Embedding(Block):
    """Token embedding (a look-up: no FLOPs) with ``positions`` learned position vectors."""

    kind: ClassVar[str] = "embedding"
    short: ClassVar[dict[str, str]] = {"hidden": "h"}
    pointwise: ClassVar[bool] = True
    quantised: ClassVar[bool] = False

    vocab: int
    hidden: int
    positions: int = 0

    def params(self) -> int:
        return (self.vocab + self.positions) * self.hidden

    def token_flops(self) -> int:
        return 0

    def weights_read(self, tokens: int) -> int:
        # At least one row, at most the table: a bound may not assume distinct tokens.
        return min(tokens, 1) * self.hidden

    def io_width(self) -> int:
        return self.hidden

    def inner_width(self) -> int:
        return self.hidden

    def _cut(self, degree: int) -> Self:
        return replace(self, vocab=divide(self.vocab, degree, "vocab"))


@register
@dataclass(frozen=True)
class Head(Block):
    """Final norm, projection to the vocabulary, and the choice of the next token.

    Attributes:
        tied: the matrix is the embedding's; it is read but not stored again.
        every_position: prefill makes logits for every token (training, scoring) and not only for
            the last one (generation, the default).
    """

    kind: ClassVar[str] = "head"
    short: ClassVar[dict[str, str]] = {"hidden": "h"}
    pointwise: ClassVar[bool] = True
    quantised: ClassVar[bool] = False

    hidden: int
    vocab: int
    bias: bool = False
    norm: bool = True
    norm_bias: bool = False
    tied: bool = False
    every_position: bool = False

    def params(self) -> int:
        return self.weights_read(1) - self.tied * self.hidden * self.vocab

    def weights_read(self, tokens: int) -> int:
        norms = norm_params(self.hidden, self.norm, self.norm_bias)
        return self.hidden * self.vocab + self.bias * self.vocab + norms

    def token_flops(self) -> int:
        return 2 * self.hidden * self.vocab

    def computed_tokens(self, batch: int, length: int) -> int:
        return batch * (length if self.every_position else min(length, 1))

    def io_width(self) -> int:
        return self.hidden + self.vocab

    def inner_width(self) -> int:
        return 4 * self.hidden + self.vocab

    def _cut(self, degree: int) -> Self:
        return replace(self, vocab=divide(self.vocab, degree, "vocab"))
