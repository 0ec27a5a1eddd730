"""Random heterogeneous children of a decoder's shape."""

from __future__ import annotations

import random
from collections.abc import Sequence

from adaptive.core.cost import FFN, Attention, Block, Linear, NoOp, Stack
from adaptive.core.cost.models import DecoderShape
from adaptive.core.cost.stack import decoder


def random_children(
    shape: DecoderShape, blocks: Sequence[Block], count: int, layers: int | None, seed: int
) -> list[Stack]:
    """Models whose layers are drawn from a search space.

    Each child keeps a share of its parent's sub-blocks, drawn between nothing and nine tenths, so
    that children of all speeds are among them.

    Args:
        shape: of the parent.
        blocks: the space: attention, FFN and linear blocks; no-ops are added.
        count: of children.
        layers: of a child; None for as many as the parent has.
        seed: of the draws.
    """
    draw = random.Random(seed)
    removed: list[Block] = [NoOp(), *(b for b in blocks if isinstance(b, Linear))]
    attention: list[Block] = [*(b for b in blocks if isinstance(b, Attention)), *removed]
    ffn: list[Block] = [*(b for b in blocks if isinstance(b, FFN)), *removed]
    children = []
    for _ in range(count):
        kept = draw.uniform(0.0, 0.9)
        chosen = [
            (
                a if draw.random() < kept else draw.choice(attention),
                f if draw.random() < kept else draw.choice(ffn),
            )
            for a, f in own_layers(shape, layers)
        ]
        children.append(decoder(shape.hidden, shape.vocab, chosen, tied=shape.tied))
    return children


def parent(shape: DecoderShape, layers: int | None) -> Stack:
    """The parent itself, with as many layers as its children."""
    return decoder(shape.hidden, shape.vocab, own_layers(shape, layers), tied=shape.tied)


def own_layers(shape: DecoderShape, layers: int | None) -> list[tuple[Block, Block]]:
    """The parent's (attention, FFN) of each layer, from the first again where it has too few."""
    own = shape.stack().blocks[1:-1]
    pairs = list(zip(own[::2], own[1::2], strict=True))
    return [pairs[i % len(pairs)] for i in range(layers or len(pairs))]
