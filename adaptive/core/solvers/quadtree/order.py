"""Best-first splitting of quadtrees as sorts instead of a loop.

The loop would split, of all leaves, the one with the highest score, until there are enough. Which
nodes it has split after K steps, for every K at once, is an order of the nodes, and the order needs
no loop: a node waits for the ancestor with the worst score, then for the worst one below that, and
so on. Comparing those *bottlenecks* from the root down says who of two nodes is split first:

    s:  5 -> 2 -> 7 -> 4        bottlenecks of the last node: 2, then 4
    s:  3 -> 1                  bottlenecks: 1. Splits after the one above, since 1 < 2.

Ties between scores go to the coarser node, then to the one that comes first in its level, so ranks
of scores take the scores' place, and are all different. Ranks of a node's bottlenecks are joined
into one integer; sorting it is the answer.

Shapes: B images, S nodes that may split, K splits, N leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.solvers.quadtree import counting
from adaptive.core.solvers.quadtree.geometry import Geometry
from adaptive.core.solvers.quadtree.leaves import (
    Leaves,
    RaggedLeaves,
    ragged_leaves,
    static_leaves,
    to_children,
)

BITS = 63  # of a sorted integer


@dataclass(frozen=True)
class SplitOrder:
    """In which order best-first search splits the nodes of each image; serves every budget.

    Attributes:
        geometry: of the images.
        score_BS: what the order was made from.
        rank_BS: the step at which each node is split, from 0.
    """

    geometry: Geometry
    score_BS: Float[Tensor, "B S"]
    rank_BS: Int[Tensor, "B S"]

    def leaves(self, num_tokens: int) -> Leaves:
        """Leaves after as many splits as give ``num_tokens`` of them in each image.

        Raises:
            UserError: an infeasible number, with its feasible neighbours.
        """
        splits = self.geometry.splits(num_tokens)
        return static_leaves(self.geometry, self.rank_BS < splits, num_tokens)

    def above(self, threshold: float) -> RaggedLeaves:
        """Leaves where nothing is left whose score exceeds ``threshold``; their number varies."""
        return ragged_leaves(self.geometry, self.key_BS > threshold)

    @cached_property
    def key_BS(self) -> Float[Tensor, "B S"]:
        """The least score on the way from its root to each node: the *path minimum*.

        A node is split at every threshold below its key.
        """
        return path_min(self.score_BS, self.geometry)

    def price(self, num_tokens: int) -> Float[Tensor, " B"]:
        """Shadow price of a token in each image: what the next split would gain, by token.

        Splitting all that lies above three times the price gives ``num_tokens`` again, ties aside.
        It is 0 where nothing is left to split.
        """
        splits = self.geometry.splits(num_tokens)
        if splits == self.geometry.splittable:
            return self.score_BS.new_zeros(self.score_BS.shape[0])
        next_BS = (self.rank_BS == splits) & torch.isfinite(self.key_BS)
        return torch.where(next_BS, self.key_BS, 0).sum(1) / 3


def split_order(score_BS: Float[Tensor, "B S"], geometry: Geometry) -> SplitOrder:
    """The order in which best-first search splits the nodes of each image.

    Args:
        score_BS: what splitting a node is worth, for the nodes that may split in their order.
        geometry: of the images.

    Raises:
        UserError: scores of another geometry, or NaN among them.
    """
    _check(score_BS, geometry)
    rank_BS = _ranks(score_BS)
    if len(geometry.sides) > 2:  # else no node has to wait for another
        rank_BS = _places(_bottlenecks(rank_BS, geometry))
    return SplitOrder(geometry, score_BS, rank_BS)


def batch_leaves(
    score_BS: Float[Tensor, "B S"], geometry: Geometry, total_tokens: int, floor: int | None = None
) -> RaggedLeaves:
    """Shares one budget of tokens between the images of a batch, best split first.

    Scores must compare between images, as those of ``Prior.shared`` do. Each image gets ``floor``
    leaves by its own order; what is left goes to the best splits of all.

    Args:
        score_BS: as for :func:`split_order`.
        geometry: of each image.
        total_tokens: leaves of all images together.
        floor: least number of leaves of an image; None: its roots.

    Raises:
        UserError: a budget that the batch cannot spend, or below its floors.
    """
    _check(score_BS, geometry)
    splits = _batch_splits(geometry, score_BS.shape[0], total_tokens, floor or geometry.roots)
    rank_BS = batch_ranks(score_BS, geometry, floor)
    return ragged_leaves(geometry, rank_BS < splits, total_tokens)


def batch_ranks(
    score_BS: Float[Tensor, "B S"], geometry: Geometry, floor: int | None = None
) -> Int[Tensor, "B S"]:
    """The step at which each node of a batch is split when its images share one budget.

    Args:
        score_BS: as for :func:`split_order`.
        geometry: of each image.
        floor: leaves of each image that come before all others; None: none but its roots.
    """
    B, S = score_BS.shape
    # Nodes of all images in one row, the reserved ones before all others.
    rank_BS = _ranks(score_BS.reshape(1, B * S)).view(B, S)
    if reserved := geometry.splits(geometry.roots if floor is None else floor):
        later_BS = split_order(score_BS, geometry).rank_BS >= reserved
        rank_BS = rank_BS + later_BS * (B * S)
    if len(geometry.sides) > 1:
        rank_BS = _places(_bottlenecks(rank_BS, geometry), one_row=True)
    return rank_BS


def _batch_splits(geometry: Geometry, images: int, total_tokens: int, floor: int) -> int:
    """How many nodes of a batch split for it to have so many leaves."""
    least, most = images * geometry.roots, images * geometry.cells
    if not images * floor <= total_tokens <= most:
        raise UserError(
            f"total_tokens={total_tokens} for {images} images of {floor} to {geometry.cells} "
            f"tokens: choose {images * floor} to {most}, or another floor"
        )
    splits, rest = divmod(total_tokens - least, 3)
    if rest:
        raise UserError(
            f"total_tokens={total_tokens} is not feasible: each split adds 3 to {least}, choose "
            f"{total_tokens - rest} or {total_tokens - rest + 3}"
        )
    return splits


def path_min(value_BS: Tensor, geometry: Geometry) -> Tensor:
    """The least value on the way from its root to each node."""
    sizes = _sizes(geometry)
    parts = list(value_BS.split(sizes, dim=1)) if sizes else []
    for level in range(1, len(parts)):
        parts[level] = torch.minimum(
            parts[level], to_children(parts[level - 1], geometry.shapes[level - 1])
        )
    return torch.cat(parts, 1) if parts else value_BS


def _check(score_BS: Tensor, geometry: Geometry) -> None:
    if score_BS.ndim != 2 or score_BS.shape[1] != geometry.splittable:
        raise UserError(
            f"scores of shape {tuple(score_BS.shape)} do not fit: {geometry.splittable} nodes of "
            f"an image of {geometry.height} x {geometry.width} pixels may split"
        )
    if not torch.compiler.is_compiling() and bool(score_BS.isnan().any()):
        raise UserError("scores hold NaN: mend the prior, or the image that it was given")


def _sizes(geometry: Geometry) -> list[int]:
    return [rows * cols for rows, cols in geometry.shapes[:-1]]


def _ranks(score_BS: Tensor) -> Tensor:
    """0 for the highest score; ties go to the first."""
    if counting.pairs_are_few(score_BS):
        return counting.descending_places(score_BS)
    order_BS = (score_BS + 0.0).argsort(dim=1, descending=True, stable=True)  # -0 is 0
    return _inverse(order_BS)


def _inverse(order_BS: Tensor) -> Tensor:
    steps = torch.arange(order_BS.shape[1], device=order_BS.device).expand_as(order_BS)
    return torch.zeros_like(order_BS).scatter(1, order_BS, steps)


def _bottlenecks(rank_BS: Tensor, geometry: Geometry) -> list[list[Tensor]]:
    """Ranks of the bottlenecks of the nodes of each level, as many for all of them: the worst on
    the way to the node, the worst below that one, and so on; 0, better than all that may follow,
    from the node itself on.

    A child adds its rank at the end of its parent's list, where it takes the place of all that
    are better than it.
    """
    depth = len(geometry.sides) - 1
    found: list[list[Tensor]] = []
    for level, own_BP in enumerate(rank_BS.split(_sizes(geometry), dim=1)):
        if level == 0:
            found.append([own_BP + 1])
            continue
        above = [to_children(part, geometry.shapes[level - 1]) for part in found[-1]]
        above.append(torch.zeros_like(own_BP))
        own_BP, parts, taken = own_BP + 1, [], torch.zeros_like(own_BP, dtype=torch.bool)
        for part_BP in above:
            # Entries go down along the list; the first that is better than the child ends it.
            here = part_BP < own_BP
            parts.append(torch.where(taken, 0, torch.where(here, own_BP, part_BP)))
            taken = taken | here
        found.append(parts)
    return [[*parts, *[torch.zeros_like(parts[0])] * (depth - len(parts))] for parts in found]


def _places(levels: list[list[Tensor]], one_row: bool = False) -> Tensor:
    """Each node's place in the lexicographic order of its bottlenecks, [B, S].

    Args:
        levels: from :func:`_bottlenecks`.
        one_row: nodes of all images stand in one order.
    """
    images, depth = levels[0][0].shape[0], len(levels)
    entries = sum(parts[0].shape[1] for parts in levels) * (images if one_row else 1)
    # Ranks and what was added to them stay below the number of entries, doubled.
    bits = (2 * entries + 1).bit_length()
    together = max(1, BITS // bits)
    order_BS: Tensor | None = None
    for last in range(depth, 0, -together):  # the last keys first: the sorts are stable
        first = max(0, last - together)
        key_BS = torch.cat([_joined(parts[first:last], bits) for parts in levels], 1)
        key_BS = key_BS.reshape(1, -1) if one_row else key_BS
        if together >= depth and counting.pairs_are_few(key_BS):
            return counting.ascending_places(key_BS).view(images, -1)
        if order_BS is None:
            order_BS = key_BS.argsort(dim=1, stable=True)
        else:
            moved_BS = key_BS.gather(1, order_BS).argsort(dim=1, stable=True)
            order_BS = order_BS.gather(1, moved_BS)
    assert order_BS is not None  # a node that may split has at least one bottleneck: itself
    return _inverse(order_BS).view(images, -1)


def _joined(parts: list[Tensor], bits: int) -> Tensor:
    """Several keys as one number each, the first one in the highest bits."""
    joined_BP = parts[0]
    for part_BP in parts[1:]:
        joined_BP = joined_BP * 2**bits + part_BP
    return joined_BP
