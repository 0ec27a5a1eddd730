"""What every priced block has in common: counts by formula, a stable name, and its parts.

Conventions, everywhere in ``adaptive.core.cost``:

- FLOPs are 2 x multiply-accumulates of matrix products and convolutions; norms, activations,
  softmax, rotary embeddings and residual additions are not counted. Causal attention is counted
  dense (all query-key pairs), as ``torch.utils.flop_counter`` and most published figures do.
- *prefill* runs ``batch`` sequences of ``length`` tokens at once. Encoders (ViT) and convolutions
  know only this phase; for a convolution ``length`` is the number of pixels of its input map.
- *decode* makes one new token a sequence; ``context`` tokens are in the KV cache before it, so the
  new token attends to ``context + 1``. Decode counts are affine in ``context`` between a block's
  ``kinks``; cost models rely on that.
- *pointwise* blocks treat tokens alike: what they cost depends on the number of tokens, not on how
  sequences share them.
- *traffic* is the least that must cross the memory bus: weights once, the block's input and output
  once, the KV cache written once and, in decode, read once. Inner activations are assumed fused.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Self, TypeVar

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry

DTYPE_BYTES: dict[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
}
"""Bytes of one element. Scales of quantised formats are not counted."""

BlockType = TypeVar("BlockType", bound="type[Block]")


def dtype_bytes(dtype: str) -> float:
    """Bytes of one element of ``dtype``; unknown names raise UserError."""
    try:
        return DTYPE_BYTES[dtype]
    except KeyError:
        raise UserError(
            f"unknown dtype {dtype!r}, choose one of {', '.join(DTYPE_BYTES)}"
        ) from None


def activation_dtype(dtype: str) -> str:
    """Dtype of activations beside weights of ``dtype``: 8 and 4 bit weights meet bf16 ones."""
    return dtype if dtype_bytes(dtype) >= 2 else "bf16"


class Block(ABC):
    """A piece of a model whose costs follow from its shape. Subclasses are frozen dataclasses."""

    kind: ClassVar[str]
    """First word of ``key()``."""
    short: ClassVar[dict[str, str]] = {}
    """Abbreviations of field names in ``key()``; other fields appear under their own names."""
    axes: ClassVar[tuple[str, ...]] = ()
    """Fields along which measured times may be interpolated."""
    pointwise: ClassVar[bool] = False
    """Whether the number of tokens decides (see the module's text)."""
    quantised: ClassVar[bool] = True
    """Whether 8 and 4 bit formats reach its weights; if not they stay as wide as activations."""

    @abstractmethod
    def params(self) -> int:
        """Number of stored parameters, norms and biases included."""

    @abstractmethod
    def token_flops(self) -> int:
        """FLOPs of one token (one output position's share), attention scores aside."""

    @abstractmethod
    def io_width(self) -> int:
        """Elements read and written per token: input width plus output width."""

    @abstractmethod
    def inner_width(self) -> int:
        """Most live elements per token during a forward; see ``activation_bytes``."""

    def operand_width(self) -> int:
        """How many of those are inputs of matrix products, which 8 bit formats reach."""
        return 0

    def prefill_flops(self, batch: int, length: int) -> int:
        """FLOPs of a forward over [batch, length] tokens."""
        return self.computed_tokens(batch, length) * self.token_flops()

    def decode_flops(self, batch: int, context: int) -> int:
        """FLOPs of one decode step of ``batch`` sequences with ``context`` cached tokens each."""
        return batch * self.token_flops()

    def computed_tokens(self, batch: int, length: int) -> int:
        """Tokens that a forward over [batch, length] computes."""
        return batch * length

    def weight_dtype(self, dtype: str) -> str:
        """Dtype of the stored weights in a model of ``dtype``."""
        return dtype if self.quantised else activation_dtype(dtype)

    def weight_bytes(self, dtype: str) -> float:
        """Bytes of the stored parameters in a model of ``dtype``."""
        return self.params() * dtype_bytes(self.weight_dtype(dtype))

    def kv_bytes_per_token(self, dtype: str) -> float:
        """Bytes that the KV cache grows by with each token of each sequence."""
        return 0.0

    def cache_bytes(self, batch: int, length: int, dtype: str) -> float:
        """Bytes of the KV cache of ``batch`` sequences of ``length`` tokens."""
        return batch * length * self.kv_bytes_per_token(dtype)

    def kinks(self) -> tuple[int, ...]:
        """Contexts up to which, and from which on, decode counts are affine."""
        return ()

    def activation_bytes(self, batch: int, length: int, dtype: str) -> float:
        """Most bytes of live activations in a forward without autograd.

        Counted as an engine (``core.engine``) keeps them, elementwise work fused: the residual
        stream and what is still to be added to it, both before and after the sum; the norm's
        output; the block's inner tensors. Attention is fused (no ``length x length`` scores).
        Peaks of consecutive blocks do not add up: that of a stack is the largest of them.
        """
        wide = dtype_bytes(activation_dtype(dtype))
        narrow = min(dtype_bytes(dtype), wide)
        width = self.inner_width() * wide - self.operand_width() * (wide - narrow)
        return self.computed_tokens(batch, length) * width

    def weights_read(self, tokens: int) -> int:
        """Parameters that a forward over ``tokens`` tokens must read."""
        return self.params()

    def prefill_bytes(
        self, batch: int, length: int, dtype: str, kv_dtype: str | None = None
    ) -> float:
        """Traffic in bytes of a forward over [batch, length] tokens (see the module's text)."""
        kv = self.kv_bytes_per_token(kv_dtype or activation_dtype(dtype))
        return self._traffic(self.computed_tokens(batch, length), dtype) + batch * length * kv

    def decode_bytes(
        self, batch: int, context: int, dtype: str, kv_dtype: str | None = None
    ) -> float:
        """Traffic in bytes of one decode step: weights, activations, the whole KV cache."""
        cache = self.cache_bytes(batch, context + 1, kv_dtype or activation_dtype(dtype))
        return self._traffic(batch, dtype) + cache

    def _traffic(self, tokens: int, dtype: str) -> float:
        activations = tokens * self.io_width() * dtype_bytes(activation_dtype(dtype))
        return self.weights_read(tokens) * dtype_bytes(self.weight_dtype(dtype)) + activations

    def out_length(self, length: int) -> int:
        """Positions that the next block sees; differs from ``length`` after a strided block."""
        return length

    def parts(self) -> tuple[Block, ...]:
        """The blocks that are priced one by one: itself, or the members of a stack."""
        return (self,)

    def parts_at(self, length: int) -> Iterator[tuple[Block, int]]:
        """The parts with the length that each sees of an input of ``length``."""
        yield self, length

    def shard(self, degree: int) -> Self:
        """The part that each of ``degree`` tensor-parallel devices holds.

        As Megatron-LM cuts (Shoeybi et al., 2019, section 3): heads, FFN widths, vocabularies and
        the outputs of stand-alone matrices are divided; norms, and biases that are added after a
        reduction, are whole on every device.

        Raises:
            UserError: the shape does not divide by ``degree``.
        """
        return self if checked_degree(degree) == 1 else self._cut(degree)

    def _cut(self, degree: int) -> Self:
        raise UserError(
            f"tensor parallelism does not cut {self.kind} blocks: set tensor_parallel=1"
        )

    def key(self) -> str:
        """Stable name from the shape, such as ``attention(h=4096,heads=32,kv=8,d=128)``.

        Fields at their default are left out, so that adding a field keeps old tables valid.
        """
        parts = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING or value != field.default:
                parts.append(f"{self.short.get(field.name, field.name)}={int(value)}")
        return f"{self.kind}({','.join(parts)})"


def checked_degree(degree: int) -> int:
    """``degree``, if that many devices can share a model; UserError if not."""
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 1:
        raise UserError(f"tensor_parallel={degree!r} must be a whole number >= 1")
    return degree


def divide(total: int, degree: int, what: str) -> int:
    """``total / degree``; UserError where that is not whole."""
    if total % degree:
        raise UserError(
            f"tensor_parallel={degree} does not divide {what}={total}: choose a divisor of it"
        )
    return total // degree


BLOCKS: Registry[type[Block]] = Registry("block")


def register(cls: BlockType) -> BlockType:
    """Class decorator: file a block under its ``kind`` so that ``parse_block`` finds it."""
    BLOCKS.register(cls.kind)(cls)
    return cls


def parse_block(key: str) -> Block:
    """The block that ``key()`` named; UserError where the text names none."""
    kind, bracket, rest = key.partition("(")
    if not bracket or not rest.endswith(")"):
        raise UserError(f"{key!r} is not a block's key, expected KIND(FIELD=NUMBER,...)")
    cls = BLOCKS[kind]
    long = {short: name for name, short in cls.short.items()}
    values: dict[str, Any] = {}
    try:
        for item in filter(None, rest[:-1].split(",")):
            name, _, value = item.partition("=")
            values[long.get(name, name)] = int(value)
        types = {f.name: f.default for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{n: bool(v) if isinstance(types[n], bool) else v for n, v in values.items()})
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{key!r} does not name a {kind} block: unknown or missing field") from None
