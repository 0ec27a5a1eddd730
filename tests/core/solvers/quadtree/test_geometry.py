import numpy as np
import pytest

from adaptive.core import UserError
from adaptive.core.solvers.quadtree import Geometry


@pytest.mark.parametrize(
    "size, patches, roots, cells",
    [
        ((256, 256), (16, 64), 16, 256),
        ((224, 224), (14, 56), 16, 256),
        ((256, 128), (8, 128), 2, 512),
        ((64, 64), (32, 32), 4, 4),
    ],
)
def test_levels_and_numbers(size, patches, roots, cells):
    geometry = Geometry(*size, *patches)
    assert (geometry.roots, geometry.cells) == (roots, cells)
    assert geometry.sides[0] == patches[1] and geometry.sides[-1] == patches[0]
    assert geometry.nodes == sum(rows * cols for rows, cols in geometry.shapes)
    assert geometry.nodes - geometry.splittable == cells
    assert list(geometry.feasible()) == [roots + 3 * k for k in range(geometry.splittable + 1)]
    assert len(geometry.feasible()) == geometry.splittable + 1


def test_published_numbers_of_tokens():
    """Quadformer at 256 px, patches of 16 to 64: these are feasible, 81 and 144 are not."""
    geometry = Geometry(256, 256)
    assert [geometry.splits(n) for n in (49, 64, 100, 121, 169, 196)] == [11, 16, 28, 35, 51, 60]
    with pytest.raises(UserError, match="num_tokens=81 .* choose 79 or 82"):
        geometry.splits(81)
    with pytest.raises(UserError, match="num_tokens=144 .* choose 142 or 145"):
        geometry.splits(144)


@pytest.mark.parametrize("tokens, says", [(4, "choose 16$"), (300, "choose 256$")])
def test_numbers_out_of_range_name_the_nearest(tokens, says):
    with pytest.raises(UserError, match=says):
        Geometry(256, 256).splits(tokens)


@pytest.mark.parametrize("size, patches", [((256, 192), (16, 64)), ((64, 128), (4, 32))])
def test_children_tile_their_parent(size, patches):
    geometry = Geometry(*size, *patches)
    cover = np.zeros((geometry.nodes, *size), dtype=bool)
    for node, (top, left, side) in enumerate(geometry.boxes):
        cover[node, top : top + side, left : left + side] = True
        assert side == geometry.sides[geometry.levels[node]]
    for node in range(geometry.splittable):
        below = np.flatnonzero(geometry.parents == node)
        assert len(below) == 4 and (cover[below].sum(0) == cover[node]).all()
    assert (cover[: geometry.roots].sum(0) == 1).all()


@pytest.mark.parametrize(
    "arguments, says",
    [
        ((224, 224), "resize it to 192 x 192 or pad it to 256 x 256"),
        ((30, 64), "resize it to 64 x 64 or pad it to 64 x 64"),
        ((0, 64), "is empty"),
        ((256, 256, 16, 48), "a power of two"),
        ((256, 256, 64, 16), "the larger as max_patch"),
        ((256, 256, 0, 16), "the larger as max_patch"),
    ],
)
def test_mistakes_get_one_sentence(arguments, says):
    with pytest.raises(UserError, match=says):
        Geometry(*arguments)
