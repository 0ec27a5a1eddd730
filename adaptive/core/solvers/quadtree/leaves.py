"""The leaves of quadtrees: which patches an image's tokens are.

Shapes: B images, S nodes that may split, V nodes of all levels, N leaves of each image, T leaves of
all images, C cells of the finest grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from adaptive.core.solvers.quadtree import counting
from adaptive.core.solvers.quadtree.geometry import Geometry


@dataclass(frozen=True)
class Leaves:
    """As many leaves in each image.

    Attributes:
        geometry: of the images.
        node_BN: numbers of the leaves, ascending: coarse ones first, row by row.
    """

    geometry: Geometry
    node_BN: Int[Tensor, "B N"]

    @property
    def num_tokens(self) -> int:
        """Leaves of each image."""
        return self.node_BN.shape[1]

    def boxes(self) -> Int[Tensor, "B N 3"]:
        """Top row, left column and side of each leaf in pixels."""
        return _table(self.geometry.boxes, self.node_BN)[self.node_BN]

    def levels(self) -> Int[Tensor, "B N"]:
        """Level of each leaf, 0 for roots."""
        return _table(self.geometry.levels, self.node_BN)[self.node_BN]

    def owners(self) -> Int[Tensor, "B C"]:
        """For each cell of the finest grid, row by row, the leaf (0..N-1) that covers it."""
        B, N = self.node_BN.shape
        places_BN = torch.arange(N, device=self.node_BN.device).expand(B, N)
        empty_BV = self.node_BN.new_full((B, self.geometry.nodes), -1)
        return _spread(empty_BV.scatter(1, self.node_BN, places_BN), self.geometry)


@dataclass(frozen=True)
class RaggedLeaves:
    """Leaves of images that differ in their number, one image after the other.

    Attributes:
        geometry: of each image.
        node_T: numbers of the leaves, ascending within an image.
        image_T: the image of each leaf.
        lengths_B: leaves of each image.
    """

    geometry: Geometry
    node_T: Int[Tensor, " T"]
    image_T: Int[Tensor, " T"]
    lengths_B: Int[Tensor, " B"]

    @property
    def num_tokens(self) -> int:
        """Leaves of all images together."""
        return self.node_T.shape[0]

    def offsets(self) -> Int[Tensor, " ends"]:
        """Where each image's leaves begin, and the number of all: ``cu_seqlens`` of attention."""
        return torch.nn.functional.pad(self.lengths_B.cumsum(0), (1, 0)).to(torch.int32)

    def boxes(self) -> Int[Tensor, "T 3"]:
        """Top row, left column and side of each leaf in pixels."""
        return _table(self.geometry.boxes, self.node_T)[self.node_T]

    def levels(self) -> Int[Tensor, " T"]:
        """Level of each leaf, 0 for roots."""
        return _table(self.geometry.levels, self.node_T)[self.node_T]

    def owners(self) -> Int[Tensor, "B C"]:
        """For each cell of the finest grid, row by row, the leaf (0..T-1) that covers it."""
        B, V = self.lengths_B.shape[0], self.geometry.nodes
        places_T = torch.arange(self.node_T.shape[0], device=self.node_T.device)
        empty_BV = self.node_T.new_full((B * V,), -1)
        filled_BV = empty_BV.scatter(0, self.image_T * V + self.node_T, places_T)
        return _spread(filled_BV.view(B, V), self.geometry)

    def padded(self, length: int) -> tuple[Int[Tensor, "B M"], Bool[Tensor, "B M"]]:
        """Numbers of the leaves in rows of ``length``, 0 where there is none, and where one is."""
        B = self.lengths_B.shape[0]
        begins_B = self.lengths_B.cumsum(0) - self.lengths_B
        column_T = torch.arange(self.node_T.shape[0], device=self.node_T.device)
        column_T = column_T - begins_B[self.image_T]
        node_BM = self.node_T.new_zeros(B, length)
        node_BM[self.image_T, column_T] = self.node_T
        real_M = torch.arange(length, device=self.node_T.device)
        return node_BM, real_M < self.lengths_B[:, None]


def static_leaves(geometry: Geometry, split_BS: Bool[Tensor, "B S"], num_tokens: int) -> Leaves:
    """Leaves of images in which as many nodes are split, so that each has ``num_tokens``."""
    node_N = _compact(_leaf_mask(geometry, split_BS), num_tokens)
    return Leaves(geometry, node_N)


def ragged_leaves(
    geometry: Geometry, split_BS: Bool[Tensor, "B S"], total_tokens: int | None = None
) -> RaggedLeaves:
    """Leaves of images in which any nodes are split; a node's parent is split if it is.

    Args:
        geometry: of each image.
        split_BS: the nodes that are split.
        total_tokens: leaves of all images, where known: else the device is asked.
    """
    leaf_BV = _leaf_mask(geometry, split_BS)
    lengths_B = leaf_BV.sum(1)
    total = int(lengths_B.sum()) if total_tokens is None else total_tokens
    flat_T = _compact(leaf_BV.view(1, -1), total)[0]
    return RaggedLeaves(geometry, flat_T % geometry.nodes, flat_T // geometry.nodes, lengths_B)


def to_children(value_BP: Tensor, shape: tuple[int, int]) -> Tensor:
    """A value of each node of a level of so many rows and columns, for each node of the next."""
    rows, cols = shape
    grid = value_BP.view(-1, rows, 1, cols, 1).expand(-1, rows, 2, cols, 2)
    return grid.reshape(-1, 4 * rows * cols)


def _leaf_mask(geometry: Geometry, split_BS: Tensor) -> Tensor:
    """Which nodes of all levels are leaves, [B, V]: their parent is split, and they are not."""
    if not geometry.splittable:
        return split_BS.new_ones(split_BS.shape[0], geometry.roots)
    parts = split_BS.split([rows * cols for rows, cols in geometry.shapes[:-1]], 1)
    reached = [
        to_children(part, shape) for part, shape in zip(parts, geometry.shapes, strict=False)
    ]
    # All roots are reached. The finest do not split; of the others, those that split are no leaves
    # and their parents are split, so unequal means leaf.
    inner = [above ^ own for above, own in zip(reached, parts[1:], strict=False)]
    return torch.cat([~parts[0], *inner, reached[-1]], 1)


def _compact(chosen_BV: Tensor, count: int) -> Tensor:
    """Numbers of the chosen entries of each row, ascending, [B, count]; every row has as many."""
    if counting.launches_cost(chosen_BV):
        return counting.chosen_numbers(chosen_BV, count)
    B, V = chosen_BV.shape
    # Those that are not chosen all go to one place beyond the last.
    place_BV = torch.where(chosen_BV, chosen_BV.cumsum(1) - 1, count)
    numbers_BV = torch.arange(V, device=chosen_BV.device).expand(B, V)
    found = numbers_BV.new_zeros(B, count + 1)
    return found.scatter(1, place_BV, numbers_BV)[:, :count]


def _spread(place_BV: Tensor, geometry: Geometry) -> Tensor:
    """Hands each leaf's place down to the cells that it covers, [B, C]; others hold -1."""
    sizes = [rows * cols for rows, cols in geometry.shapes]
    parts = place_BV.split(sizes, 1)
    found = parts[0]
    for level in range(1, len(parts)):
        found = torch.maximum(parts[level], to_children(found, geometry.shapes[level - 1]))
    return found


def _table(values, like: Tensor) -> Tensor:
    """A table of the geometry on a device."""
    return torch.as_tensor(values, device=like.device)
