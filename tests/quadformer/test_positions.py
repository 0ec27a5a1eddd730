"""Positions of coarse nodes from tables of the cells."""

from __future__ import annotations

import pytest
import torch

from adaptive.core.solvers.quadtree import Geometry
from adaptive.quadformer.positions import area_average, centre_rotations

GEOMETRY = Geometry(64, 96, 4, 32)


def test_absolute_positions_are_means_over_the_area():
    table = torch.randn(GEOMETRY.cells, 5)
    found = area_average(table, GEOMETRY)
    grid = table.view(*GEOMETRY.grid, 5)
    for number, box in enumerate((GEOMETRY.boxes // 4).tolist()):
        row, col, side = box
        mean = grid[row : row + side, col : col + side].mean((0, 1))
        torch.testing.assert_close(found[number], mean)
    torch.testing.assert_close(found[GEOMETRY.splittable :], table, rtol=0, atol=0)


@pytest.mark.parametrize("steps", [(0.7, 0.0), (0.0, 1.3), (2.9, -0.2), (-1.0, 3.0)])
def test_rotations_are_those_of_the_centre(steps):
    row, col = (torch.arange(n, dtype=torch.float64) for n in GEOMETRY.grid)
    angle = (0.3 + steps[0] * row[:, None] + steps[1] * col).flatten()[:, None]
    found = centre_rotations(torch.cat([angle.sin(), angle.cos()], 1)[None], GEOMETRY)[0]
    boxes = torch.tensor(GEOMETRY.boxes).double() / 4
    centre = boxes[:, :2] + (boxes[:, 2:] - 1) / 2  # in cells: the first cell's centre is at 0
    expected = 0.3 + centre @ torch.tensor(steps, dtype=torch.float64)
    torch.testing.assert_close(found, torch.stack([expected.sin(), expected.cos()], 1))


def test_half_a_turn_a_cell_has_no_centre():
    row = torch.arange(GEOMETRY.grid[0])[:, None].expand(GEOMETRY.grid).flatten()[:, None]
    angle = torch.pi * row.double()
    found = centre_rotations(torch.cat([angle.sin(), angle.cos()], 1), GEOMETRY)
    assert found[: GEOMETRY.splittable].abs().max() < 1e-6
