"""Local search on choices: repair what breaks a limit, then improve by single and paired moves.

Shapes: G groups, K options, R rows, M candidate moves.
"""

from __future__ import annotations

import time

import numpy as np
from jaxtyping import Float, Int

from adaptive.core.solvers.program import Program

_EPS = 1e-13


def repair(
    program: Program,
    choice_G: Int[np.ndarray, "G"],
    price_GK: Float[np.ndarray, "G K"] | None = None,
) -> Int[np.ndarray, "G"] | None:
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


def improve(
    program: Program,
    choice_G: Int[np.ndarray, "G"],
    reduced_GK: Float[np.ndarray, "G K"] | None = None,
    deadline: float = np.inf,
    pairs: int = 400,
) -> Int[np.ndarray, "G"]:
    """Lowers the loss of a feasible choice by the best single move, then the best pair, repeatedly.

    Args:
        program: the scaled problem.
        choice_G: a feasible choice.
        reduced_GK: reduced costs of the dual. Pairs are drawn from the moves that raise them least:
            those are the moves that a near-optimal choice can contain.
        deadline: value of ``time.perf_counter()`` at which to stop.
        pairs: how many moves are paired with each other; 0 for single moves alone.
    """
    choice_G = choice_G.copy()
    for _ in range(200):
        if time.perf_counter() > deadline:
            break
        use_RG = program.pick(program.use_RGK, choice_G)
        moved_RGK = program.use_RGK - use_RG[:, :, None]
        room_R = program.room_R - use_RG.sum(-1)
        extra_GK = program.loss_GK - program.pick(program.loss_GK, choice_G)[:, None]
        fits_GK = (moved_RGK <= room_R[:, None, None]).all(0)
        single_GK = np.where(fits_GK, extra_GK, np.inf)
        g, k = np.unravel_index(single_GK.argmin(), single_GK.shape)
        if single_GK[g, k] < -_EPS:
            choice_G[g] = k
            continue
        rise_GK = program.loss_GK if reduced_GK is None else reduced_GK
        rise_GK = rise_GK - program.pick(rise_GK, choice_G)[:, None]
        pair = _best_pair(rise_GK, extra_GK, moved_RGK, room_R, pairs)
        if pair is None:
            break
        for g, k in pair:
            choice_G[g] = k
    return choice_G


def _best_pair(
    rise_GK: Float[np.ndarray, "G K"],
    extra_GK: Float[np.ndarray, "G K"],
    moved_RGK: Float[np.ndarray, "R G K"],
    room_R: Float[np.ndarray, "R"],
    pairs: int,
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The two moves in different groups that together fit and save most."""
    stays = (extra_GK == 0) & (moved_RGK == 0).all(0)
    order = np.where(stays, np.inf, rise_GK).ravel()
    moves_M = np.argsort(order)[:pairs]
    moves_M = moves_M[np.isfinite(order[moves_M])]
    if len(moves_M) < 2:
        return None
    groups_M, options_M = np.unravel_index(moves_M, extra_GK.shape)
    extra_M = extra_GK[groups_M, options_M]
    total_MM = extra_M[:, None] + extra_M[None]
    allowed_MM = (total_MM < -_EPS) & (groups_M[:, None] != groups_M[None])
    for moved_GK, room in zip(moved_RGK, room_R, strict=True):
        moved_M = moved_GK[groups_M, options_M]
        allowed_MM &= moved_M[:, None] + moved_M[None] <= room
    i, j = np.unravel_index(np.where(allowed_MM, total_MM, np.inf).argmin(), total_MM.shape)
    if not allowed_MM[i, j]:
        return None
    return (int(groups_M[i]), int(options_M[i])), (int(groups_M[j]), int(options_M[j]))
