"""Pixels of leaves against cutting each one out."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from adaptive.core.solvers.quadtree import Geometry
from adaptive.quadformer.patches import grid_patches, leaf_areas, leaf_maps, leaf_patches


@settings(max_examples=15)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([1, 3, 4]),
    st.integers(1, 4),
    st.booleans(),
)
def test_a_leaf_is_its_box_averaged_down(rows, cols, patch, levels, channels_last):
    side = patch << (levels - 1)
    geometry = Geometry(rows * side, cols * side, patch, side)
    image = torch.randn(2, 3, *geometry.size)
    if channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    node = torch.arange(geometry.nodes).expand(2, -1)
    found = leaf_patches(image, node, torch.arange(2)[:, None], geometry)
    for number, (row, col, length) in enumerate(geometry.boxes.tolist()):
        box = image[:, :, row : row + length, col : col + length]
        torch.testing.assert_close(found[:, number], F.avg_pool2d(box, length // patch))


def test_any_leaves_of_any_images():
    geometry = Geometry(8, 12, 2, 4)
    image = torch.randn(3, 3, 8, 12)
    every = leaf_patches(
        image, torch.arange(geometry.nodes).expand(3, -1), torch.arange(3)[:, None], geometry
    )
    node, which = torch.tensor([29, 0, 7, 7]), torch.tensor([2, 0, 1, 2])
    torch.testing.assert_close(leaf_patches(image, node, which, geometry), every[which, node])


def test_the_full_grid_is_the_finest_level():
    geometry = Geometry(8, 12, 2, 4)
    image = torch.randn(3, 3, 8, 12)
    node = torch.arange(geometry.splittable, geometry.nodes).expand(3, -1)
    found = leaf_patches(image, node, torch.arange(3)[:, None], geometry)
    torch.testing.assert_close(grid_patches(image, 2), found, rtol=0, atol=0)


def test_areas_are_counted_in_cells():
    geometry = Geometry(48, 64, 4, 16)
    area = leaf_areas(torch.arange(geometry.nodes), geometry)
    assert area.tolist() == [(side // 4) ** 2 for side in geometry.boxes[:, 2].tolist()]


def test_maps_hold_what_is_known_of_the_leaf_that_covers_each_cell():
    geometry = Geometry(16, 16, 4, 8)  # four roots of four cells
    leaves = torch.tensor([[0, 1, 2, *range(14, 16), *range(18, 20)]])
    y_BND = torch.arange(7.0)[None, :, None]
    map_BDRC = leaf_maps(y_BND, leaves, geometry)
    rows = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 4], [2, 2, 5, 6]]
    assert map_BDRC.tolist() == [[rows]]
    cells_B1RC = leaf_maps(torch.arange(16.0)[None, :, None], None, geometry)
    assert cells_B1RC.flatten().tolist() == list(range(16))
