"""Blocks made of blocks, and the whole decoder as one of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from adaptive.core.cost.block import Block
from adaptive.core.cost.shapes import Embedding, Head


class Composite(Block):
    """Costs of ``members()`` run one after the other: sums, and the largest activation peak."""

    @abstractmethod
    def members(self) -> tuple[Block, ...]:
        """The blocks inside, in the order in which they run."""

    def _at(self, length: int) -> Iterator[tuple[Block, int]]:
        """Each member with the length that it sees."""
        for block in self.members():
            yield block, length
            length = block.out_length(length)

    def params(self) -> int:
        return sum(b.params() for b in self.members())

    def weights_read(self, tokens: int) -> int:
        return sum(b.weights_read(tokens) for b in self.members())

    def token_flops(self) -> int:
        return sum(b.token_flops() for b in self.members())

    def prefill_flops(self, batch: int, length: int) -> int:
        return sum(b.prefill_flops(batch, n) for b, n in self._at(length))

    def decode_flops(self, batch: int, context: int) -> int:
        return sum(b.decode_flops(batch, context) for b in self.members())

    def kv_bytes_per_token(self, dtype: str) -> float:
        return sum((b.kv_bytes_per_token(dtype) for b in self.members()), 0.0)

    def cache_bytes(self, batch: int, length: int, dtype: str) -> float:
        return sum((b.cache_bytes(batch, length, dtype) for b in self.members()), 0.0)

    def kinks(self) -> tuple[int, ...]:
        return tuple(sorted({kink for b in self.members() for kink in b.kinks()}))

    def weight_bytes(self, dtype: str) -> float:
        return sum((b.weight_bytes(dtype) for b in self.members()), 0.0)

    def activation_bytes(self, batch: int, length: int, dtype: str) -> float:
        return max((b.activation_bytes(batch, n, dtype) for b, n in self._at(length)), default=0.0)

    def prefill_bytes(
        self, batch: int, length: int, dtype: str, kv_dtype: str | None = None
    ) -> float:
        parts = (b.prefill_bytes(batch, n, dtype, kv_dtype) for b, n in self._at(length))
        return sum(parts, 0.0)

    def decode_bytes(
        self, batch: int, context: int, dtype: str, kv_dtype: str | None = None
    ) -> float:
        parts = (b.decode_bytes(batch, context, dtype, kv_dtype) for b in self.members())
        return sum(parts, 0.0)

    def out_length(self, length: int) -> int:
        for block in self.members():
            length = block.out_length(length)
        return length

    def io_width(self) -> int:
        return sum(b.io_width() for b in self.members())

    def inner_width(self) -> int:
        return max((b.inner_width() for b in self.members()), default=0)

    def operand_width(self) -> int:
        widest = max(self.members(), key=lambda b: b.inner_width(), default=None)
        return widest.operand_width() if widest else 0


@dataclass(frozen=True)
class Stack(Composite):
    """A sequence of blocks, each priced on its own: a whole model, or a detector's stage."""

    kind: ClassVar[str] = "stack"

    blocks: tuple[Block, ...]

    def members(self) -> tuple[Block, ...]:
        return self.blocks

    def parts(self) -> tuple[Block, ...]:
        return tuple(part for block in self.blocks for part in block.parts())

    def parts_at(self, length: int) -> Iterator[tuple[Block, int]]:
        for block, seen in self._at(length):
            yield from block.parts_at(seen)

    def key(self) -> str:
        return f"stack({'+'.join(b.key() for b in self.blocks)})"

    def _cut(self, degree: int) -> Self:
        return replace(self, blocks=tuple(b.shard(degree) for b in self.blocks))


def decoder(
    hidden: int,
    vocab: int,
    layers: Sequence[tuple[Block, Block]],
    *,
    tied: bool = False,
    every_position: bool = False,
) -> Stack:
    """A decoder-only language model: embedding, (attention, FFN) of each layer, norm and head.

    Args:
        hidden: width of the residual stream.
        vocab: vocabulary size.
        layers: the two sub-blocks of each layer, ``NoOp()`` where one is removed.
        tied: head and embedding share their matrix.
        every_position: prefill makes logits at every position, not only the last.
    """
    head = Head(hidden, vocab, tied=tied, every_position=every_position)
    flat = [block for layer in layers for block in layer]
    return Stack((Embedding(vocab, hidden), *flat, head))
