"""Random children: of the space, of all speeds, the same for the same seed."""

from __future__ import annotations

import pytest

from adaptive.core.cost import FFN, Attention, Embedding, Head, Linear, NoOp, Stack
from adaptive.core.cost.models import DecoderShape, block_variants
from adaptive.core.profiling.children import own_layers, parent, random_children

SHAPES = {
    "alike": DecoderShape(64, 8, 8, 100, (4,) * 6, (256,) * 6),
    "tied, with biases": DecoderShape(
        64, 8, 8, 100, (4,) * 3, (256,) * 3, bias=True, mlp_bias=True, tied=True
    ),
    "heterogeneous": DecoderShape(64, 8, 8, 100, (4, 0, 2), (256, 128, 0)),
    "windows": DecoderShape(64, 8, 8, 100, (4, 4), (256, 256), windows=(32, 0)),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def space(shape: DecoderShape):
    return block_variants(shape, ffn_fractions=[1.0, 0.5, 0.25], multiple=32)


def children(shape: DecoderShape, count: int = 40, layers: int | None = None, seed: int = 0):
    return random_children(shape, space(shape), count, layers, seed)


def pairs(stack: Stack):
    """(attention, FFN) of each layer."""
    middle = stack.blocks[1:-1]
    return list(zip(middle[::2], middle[1::2], strict=True))


@shapes
def test_a_seed_decides(shape):
    assert children(shape) == children(shape)
    assert children(shape) != children(shape, seed=1)
    assert len({child.key() for child in children(shape)}) > 20


@shapes
def test_more_children_keep_the_first(shape):
    assert children(shape, 10) == children(shape, 25)[:10]


@shapes
@pytest.mark.parametrize("layers", [None, 1, 4, 9])
def test_layers(shape, layers):
    for child in children(shape, layers=layers):
        assert len(pairs(child)) == (layers or shape.layers)


@shapes
def test_only_blocks_of_the_space_each_in_its_half(shape):
    known = set(space(shape))
    for child in children(shape):
        first, *_, last = child.blocks
        assert (first, last) == (Embedding(100, 64), Head(64, 100, tied=shape.tied))
        for attention, ffn in pairs(child):
            assert isinstance(attention, Attention | Linear | NoOp)
            assert isinstance(ffn, FFN | Linear | NoOp)
            assert {attention, ffn} - {NoOp()} <= known


@shapes
def test_every_block_is_drawn_somewhere(shape):
    drawn = {block for child in children(shape, 200) for block in child.blocks}
    assert drawn == {*space(shape), NoOp()}


def test_without_the_linear_stand_in_none_is_drawn():
    shape = SHAPES["alike"]
    blocks = block_variants(shape, ffn_fractions=[1.0], multiple=32, linear=False)
    for child in random_children(shape, blocks, 20, None, 0):
        assert not any(isinstance(block, Linear) for block in child.blocks)


def test_children_are_of_all_speeds():
    """Those that keep next to nothing of their parent, and those that keep most of it."""
    shape = SHAPES["alike"]
    own = own_layers(shape, 32)
    kept = [
        sum(a == b for pair, theirs in zip(pairs(child), own, strict=True)
            for a, b in zip(pair, theirs, strict=True)) / 64
        for child in children(shape, 100, layers=32)
    ]  # fmt: skip
    assert min(kept) < 0.3 and max(kept) > 0.85
    assert all(child.params() <= parent(shape, 32).params() for child in children(shape, layers=32))


@shapes
def test_the_parent_is_the_shapes_stack(shape):
    assert parent(shape, None) == parent(shape, shape.layers) == shape.stack()


@shapes
def test_a_parent_of_other_depth_repeats_its_layers(shape):
    own = pairs(shape.stack())
    assert pairs(parent(shape, 1)) == own[:1]
    assert pairs(parent(shape, 3 * shape.layers)) == 3 * own
    assert pairs(parent(shape, shape.layers + 1)) == [*own, own[0]]
    one = parent(shape, 1).blocks
    assert (one[0], one[-1]) == (shape.stack().blocks[0], shape.stack().blocks[-1])
