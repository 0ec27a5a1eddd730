"""Diverse solutions: several answers that differ, told apart by what they are really worth.

A search goes by summed scores, which only predict. So further solutions are asked for, each with at
most a share (Puzzle's alpha) of its layers as in any earlier one, all are put together from the
library and measured, and the best that meets the budget is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adaptive.core import InfeasibleError
from adaptive.core.blockwise.search import Found


def diverse(find: Callable[[Sequence[np.ndarray]], Found], count: int) -> tuple[list[Found], str]:
    """Up to ``count`` solutions, the best predicted first.

    Args:
        find: the best solution that keeps away from earlier choices.
        count: how many are wanted.

    Returns:
        The solutions, and why there are no more (empty if there are as many as asked for).

    Raises:
        InfeasibleError: if there is not even one.
    """
    found = [find([])]
    while len(found) < count:
        try:
            found.append(find([solution.allocation.choice for solution in found]))
        except InfeasibleError as error:
            return found, str(error)
    return found, ""


def best(found: Sequence[Found], kl: Sequence[float]) -> int:
    """Index of the solution to keep: of those that meet the budget, the one nearest the parent.

    Args:
        found: the solutions.
        kl: measured divergence of each from the parent; what is not finite comes last.
    """
    return min(
        range(len(found)),
        key=lambda i: (not found[i].met, kl[i] if math.isfinite(kl[i]) else math.inf),
    )


def table(found: Sequence[Found], kl: Sequence[float], base: float) -> list[dict[str, Any]]:
    """One row a solution: predicted loss, measured KL, latency predicted and measured, overlap.

    Args:
        found: the solutions.
        kl: measured divergence of each from the parent.
        base: loss of the model that scores were taken around.
    """
    rows = []
    for i, solution in enumerate(found):
        choice_G = solution.allocation.choice
        shared = [int((choice_G == other.allocation.choice).sum()) for other in found[:i]]
        rows.append(
            {
                "loss.predicted": base + solution.allocation.loss,
                "kl": kl[i],
                "batch": solution.batch,
                "latency.predicted": solution.allocation.cost["latency"],
                "latency.measured": solution.promise["measured"] if solution.promise else None,
                "met": solution.met,
                "shared": max(shared, default=None),
            }
        )
    return rows
