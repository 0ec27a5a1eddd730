"""Local search on choices: repair what breaks a limit, then improve, one group at a time.

Shapes: G groups, K options, R rows.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from adaptive.core.solvers.program import Program

_EPS = 1e-13


def repair(
    program: Program,
    choice_G: Int[np.ndarray, " G"],
    price_GK: Float[np.ndarray, "G K"] | None = None,
) -> Int[np.ndarray, " G"] | None:
    """Moves single groups until every row is kept: the cheapest move per excess removed goes first.

    This is the marginal-ratio greedy rule; every move lowers the summed excess, so it ends.

    Args:
        program: the scaled problem.
        choice_G: where to begin.
        price_GK: what a move costs; the loss if left out.

    Returns:
        A feasible choice, or None where no single move helps any more.
    """
    price_GK = program.loss_GK if price_GK is None else price_GK
    choice_G = choice_G.copy()
    while not program.feasible(choice_G):
        use_RG = program.pick(program.use_RGK, choice_G)
        moved_RGK = program.use_RGK - use_RG[:, :, None]
        over_R = use_RG.sum(-1) - program.room_R
        excess = np.maximum(over_R, 0).sum()
        left_GK = np.maximum(over_R[:, None, None] + moved_RGK, 0).sum(0)
        removed_GK = np.where(np.isfinite(program.loss_GK), excess - left_GK, 0)
        if removed_GK.max() <= _EPS:
            return None
        extra_GK = np.maximum(price_GK - program.pick(price_GK, choice_G)[:, None], 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_GK = np.where(removed_GK > _EPS, extra_GK / removed_GK, np.inf)
        best = ratio_GK.min()
        # Ties (free moves above all) go to the move that removes most.
        tied = np.where(ratio_GK <= best, removed_GK, -np.inf)
        g, k = np.unravel_index(tied.argmax(), tied.shape)
        choice_G[g] = k
    return choice_G


def improve(program: Program, choice_G: Int[np.ndarray, " G"]) -> Int[np.ndarray, " G"]:
    """Lowers the loss of a feasible choice by the best move that fits, until none is left."""
    while True:
        use_RG = program.pick(program.use_RGK, choice_G)
        moved_RGK = program.use_RGK - use_RG[:, :, None]
        room_R = program.room_R - use_RG.sum(-1)
        extra_GK = program.loss_GK - program.pick(program.loss_GK, choice_G)[:, None]
        extra_GK[(moved_RGK > room_R[:, None, None]).any(0)] = np.inf
        g, k = np.unravel_index(extra_GK.argmin(), extra_GK.shape)
        moved_G = choice_G.copy()
        moved_G[g] = k
        # Rounding may differ between the scaled and the raw sums: only the raw ones count.
        if extra_GK[g, k] >= -_EPS or not program.feasible(moved_G):
            return choice_G
        choice_G = moved_G
