"""Saliency maps as scores of nodes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.prior import PrecomputedPrior
from adaptive.core.solvers.quadtree import Geometry
from adaptive.quadformer.train.maps import map_leaves, map_scores


@given(seed=st.integers(0, 100), factor=st.sampled_from([1, 2, 3]))
def test_a_node_is_worth_what_its_children_are_together(seed, factor):
    geometry = Geometry(64, 96, 8, 32)
    rows, cols = geometry.grid
    generator = torch.Generator().manual_seed(seed)
    map_B1hw = torch.rand(2, 1, rows * factor, cols * factor, generator=generator)
    score_BS = map_scores(map_B1hw, geometry)
    assert score_BS.shape == (2, geometry.splittable)
    for node in range(geometry.roots):
        below = [n for n, parent in enumerate(geometry.parents) if parent == node]
        assert torch.allclose(score_BS[:, below].sum(1), score_BS[:, node], rtol=1e-4)
    mass = map_B1hw.mean((1, 2, 3)) * geometry.cells
    assert torch.allclose(score_BS[:, : geometry.roots].sum(1), mass, rtol=1e-4)


def test_fine_patches_lie_where_the_map_is():
    geometry = Geometry(64, 64, 8, 32)
    map_B1hw = torch.zeros(1, 1, 8, 8)
    map_B1hw[..., :4, 4:] = 1.0  # the second root
    top_N, left_N, side_N = map_leaves(map_B1hw, geometry, 4 + 15).boxes()[0].T
    fine = side_N == 8
    assert int(fine.sum()) == 16 and (top_N[fine] < 32).all() and (left_N[fine] >= 32).all()


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (10, 13)])
def test_a_map_counts_as_the_prior_for_maps_has_it(size):
    """Also where cells of the grid cut through its pixels."""
    geometry, map_BHW = Geometry(64, 64, 8, 32), torch.rand(2, *size)
    expected = PrecomputedPrior(map_BHW=map_BHW)(torch.rand(2, 3, 64, 64), geometry)
    assert torch.allclose(map_scores(map_BHW[:, None], geometry), expected)
