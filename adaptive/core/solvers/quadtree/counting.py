"""Places by counting instead of sorting: few kernels, for GPUs and trees of a few hundred nodes.

A sort of a row of a hundred numbers keeps a GPU busy for less time than launching it takes, and a
sort, the inverse of its order and the filling of what that is scattered into are three launches.
The place of an entry is the number of those before it: one comparison of all pairs, summed in one
kernel. CPUs, which do the same work one after the other, sort.

Shapes: B images, S entries of a row, V nodes, N leaves.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 512  # entries of a row: pairs grow with the square


def launches_cost(row_BS: Tensor) -> bool:
    """Whether the device waits for launches, so that fewer kernels count for more than less work.

    Exported programs sort wherever they are made: other engines know sorts, not all of this.
    """
    return row_BS.device.type == "cuda" and not torch.compiler.is_exporting()


def pairs_are_few(row_BS: Tensor) -> bool:
    """Whether rows of this size on this device are better counted than sorted."""
    return launches_cost(row_BS) and row_BS.shape[1] <= LARGEST


def descending_places(score_BS: Tensor) -> Tensor:
    """The place of each score among those of its row, 0 for the highest; ties go to the first."""
    node_S = torch.arange(score_BS.shape[1], device=score_BS.device)
    other_B1S, own_BS1 = score_BS[:, None], score_BS[:, :, None]
    first_SS = node_S < node_S[:, None]
    return ((other_B1S > own_BS1) | ((other_B1S == own_BS1) & first_SS)).sum(2)


def ascending_places(key_BS: Tensor) -> Tensor:
    """The place of each key among those of its row, 0 for the least; keys are all different."""
    return (key_BS[:, None] < key_BS[:, :, None]).sum(2)


def chosen_numbers(chosen_BV: Tensor, count: int) -> Tensor:
    """Numbers of the chosen entries of each row, ascending, [B, count]; every row has as many."""
    reached_BV = chosen_BV.cumsum(1)
    wanted_N = torch.arange(1, count + 1, device=chosen_BV.device)
    # The first entry at which so many have been chosen.
    return torch.searchsorted(reached_BV, wanted_N.expand(chosen_BV.shape[0], -1).contiguous())
