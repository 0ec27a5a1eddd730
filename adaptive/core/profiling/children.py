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
    own = shape.stack().blocks[1:-1]
    children = []
    for _ in range(count):
        kept = draw.uniform(0.0, 0.9)
        chosen = []
        for layer in range(layers or shape.layers):
            at = 2 * (layer % shape.layers)
            first = own[at] if draw.random() < kept else draw.choice(attention)
            second = own[at + 1] if draw.random() < kept else draw.choice(ffn)
            chosen.append((first, second))
        children.append(decoder(shape.hidden, shape.vocab, chosen, tied=shape.tied))
    return children
