"""The search space: sizes of halves, from the parent's down to none."""

from __future__ import annotations

import pytest

from adaptive.core.errors import UserError
from adaptive.quadformer.puzzle.settings import SpaceConfig
from adaptive.quadformer.puzzle.space import Group, block_sizes, search_space


def test_sizes_are_whole_and_fall():
    attention, mlp = search_space([[6, 384]], SpaceConfig(mlp=[0.25, 0.9, 0.1]))
    assert attention == Group(0, "attention", (6, 4, 3, 2, 0))
    assert mlp.sizes == (384, 352, 96, 32, 0) and mlp.variants == (352, 96, 32)
    assert mlp.labels[-2:] == ("32 wide", "none")
    assert block_sizes([attention, mlp], [1, 4]) == [[4, 0]]


@pytest.mark.parametrize(
    ("heads", "wanted"), [(1, (1, 0)), (2, (2, 1, 0)), (3, (3, 2, 1, 0)), (0, (0,))]
)
def test_no_size_is_listed_twice(heads, wanted):
    """Nor is there anything to choose of a half that the parent itself lacks."""
    group = search_space([[heads, 16]], SpaceConfig())[0]
    assert group.sizes == wanted


def test_a_half_need_not_go():
    groups = search_space([[4, 64]], SpaceConfig(heads=[0.5], mlp=[], no_op=False))
    assert [group.sizes for group in groups] == [(4, 2), (64,)]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"heads": [1.0]}, "space.heads: 1.0 must lie between 0 and 1"),
        ({"mlp": [0.5, 0.0]}, "space.mlp: 0.0 must lie between 0 and 1"),
        ({"multiple": 0}, "space.multiple=0 must be above 0"),
        ({"heads": [], "mlp": [], "no_op": False}, "nothing is left to choose"),
    ],
)
def test_shares_that_are_none_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        SpaceConfig(**settings).validate()
