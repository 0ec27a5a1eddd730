"""Enumeration of the core: every choice that the dual bound leaves possible, level by level.

With reduced costs ``c >= 0`` and multipliers ``v`` of the dual, the loss of a choice is

    bound + sum_g c[g, choice_g] + v . (room - use of the choice),

so a choice better than the incumbent may only spend the small distance between incumbent and bound
on reduced costs and unused room. Few choices can: partial choices are extended group by group, all
at once in NumPy, and dropped as soon as they overspend, can no longer fit, or equal another in use
and spend more. (Layers of one shape have equal costs, so many are equal.) Where too many remain the
most promising are kept, a beam, and the cheapest one that was let go limits the bound, so the
certificate stays true. After the core of Pisinger (1995), for several rows.

Shapes: G groups, R rows that bind, N partial choices, M options of one group in the core.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from adaptive.core.solvers.dual import Dual
from adaptive.core.solvers.program import Program

_NARROWEST, _WIDENING = 300, 8


def close_gap(
    program: Program,
    dual: Dual,
    choice_G: Int[np.ndarray, " G"],
    gap: float,
    widest: int,
    deadline: float,
) -> tuple[Int[np.ndarray, " G"], float]:
    """Improves a choice, and the bound, by searching the core with ever wider beams.

    Args:
        program: the scaled problem.
        dual: its dual.
        choice_G: a feasible choice, the first incumbent.
        gap: relative gap at which to stop.
        widest: the widest beam.
        deadline: value of ``time.perf_counter()`` at which to stop.

    Returns:
        The best choice found, and a lower bound on the scaled loss of every feasible choice.
    """
    best, bound, beam = program.loss(choice_G), dual.bound, _NARROWEST
    while program.gap(best, bound) > gap and beam <= widest and time.perf_counter() < deadline:
        goal = best - program.closing_distance(best, gap)
        found = enumerate_core(program, dual, goal, beam, deadline)
        reached = min(found.bound, goal)
        if found.choice_G is not None and program.loss(found.choice_G) < best:
            choice_G, best = found.choice_G, program.loss(found.choice_G)
            reached = min(found.bound, best)
        bound = max(bound, reached)
        beam *= _WIDENING
    return choice_G, min(bound, best)


class Enumerated(NamedTuple):
    """Result of :func:`enumerate_core`.

    Attributes:
        choice_G: the best feasible choice found below the incumbent, or None.
        bound: every feasible choice has at least this scaled loss, or that of ``choice_G``, or
            that of the incumbent less the tolerance.
    """

    choice_G: Int[np.ndarray, " G"] | None
    bound: float


def enumerate_core(
    program: Program, dual: Dual, goal: float, beam: int, deadline: float
) -> Enumerated:
    """Looks at every choice whose loss may be below ``goal``, ``beam`` partial ones at a time.

    Args:
        program: the scaled problem.
        dual: its dual.
        goal: scaled loss that is worth finding.
        beam: the most partial choices kept; with fewer the search is complete.
        deadline: value of ``time.perf_counter()`` after which the beam becomes narrow.
    """
    rows = np.flatnonzero(program.room_R < 1)
    v_R, budget = dual.multipliers_R[rows], goal - dual.bound
    open_GK = np.isfinite(program.loss_GK) & (dual.reduced_GK < budget)
    use_RGK = program.use_RGK[rows]
    low_RG = np.where(open_GK, use_RGK, np.inf).min(-1)
    high_RG = np.where(open_GK, use_RGK, -np.inf).max(-1)
    base_G = np.where(open_GK, dual.reduced_GK, np.inf).argmin(1)
    base_RG = program.pick(use_RGK, base_G)
    # Groups with the widest choice first: the later ones then narrow what can still happen.
    order = np.argsort(-((high_RG - low_RG) * (v_R[:, None] + 1e-3 * v_R.max(initial=0))).sum(0))
    rest = [_suffix(x_RG[:, order]) for x_RG in (low_RG, high_RG, base_RG)]
    spent_N, use_NR = np.zeros(1), np.zeros((1, len(rows)))
    room_R = program.room_R[rows]
    history: list[tuple[np.ndarray, np.ndarray]] = []
    let_go, deduplicated = np.inf, 256
    for level, g in enumerate(order):
        if time.perf_counter() > deadline:
            beam = 1
        options_M = np.flatnonzero(open_GK[g])
        spent_NM = spent_N[:, None] + dual.reduced_GK[g, options_M]
        parent_N, entry_N = np.nonzero(spent_NM < budget)
        option_N, spent_N = options_M[entry_N], spent_NM[parent_N, entry_N]
        use_NR = use_NR[parent_N] + use_RGK[:, g, option_N].T
        low_R, high_R, base_R = (suffix_LR[level] for suffix_LR in rest)
        unused_N = np.maximum(room_R - high_R - use_NR, 0) @ v_R
        alive_N = (spent_N + unused_N < budget) & (use_NR <= room_R - low_R + 1e-13).all(1)
        kept = np.flatnonzero(alive_N)
        if len(kept) > 2 * deduplicated:
            kept = kept[_cheapest_of_equals(spent_N[kept], use_NR[kept])]
            deduplicated = max(256, len(kept))
        if len(kept) > beam:
            off_NR = room_R - base_R - use_NR[kept]
            rank_N = spent_N[kept] + np.where(off_NR > 0, off_NR, -2 * off_NR) @ v_R
            ranked = np.argpartition(rank_N, beam)
            let_go = min(let_go, float((spent_N[kept] + unused_N[kept])[ranked[beam:]].min()))
            kept = kept[ranked[:beam]]
        history.append((parent_N[kept], option_N[kept]))
        spent_N, use_NR = spent_N[kept], use_NR[kept]
        if not len(kept):
            break
    choice_G = _best(program, history, order, spent_N + (room_R - use_NR) @ v_R)
    return Enumerated(choice_G, dual.bound + let_go)


def _suffix(values_RG: Float[np.ndarray, "R G"]) -> Float[np.ndarray, "G R"]:
    """For each level the sum over later levels."""
    total_RG = np.cumsum(values_RG[:, ::-1], axis=1)[:, ::-1]
    return (total_RG - values_RG).T


def _cheapest_of_equals(
    spent_N: Float[np.ndarray, " N"], use_NR: Float[np.ndarray, "N R"]
) -> Int[np.ndarray, " M"]:
    """Indices of the cheapest partial choice of each distinct use."""
    # Equal costs summed in another order differ in the last digits: compare on a grid.
    weight_R = np.random.default_rng(0).integers(1, 2**62, use_NR.shape[1], dtype=np.uint64)
    key_N = (np.rint(use_NR * 2.0**40).astype(np.int64).astype(np.uint64) * weight_R).sum(1)
    order = np.lexsort((spent_N, key_N))
    first = np.ones(len(order), dtype=bool)
    first[1:] = key_N[order[1:]] != key_N[order[:-1]]
    return order[first]


def _best(
    program: Program,
    history: list[tuple[np.ndarray, np.ndarray]],
    order: Int[np.ndarray, " G"],
    total_N: Float[np.ndarray, " N"],
) -> Int[np.ndarray, " G"] | None:
    """The complete choice of least loss that is feasible without rounding."""
    for leaf in np.argsort(total_N)[:100]:
        choice_G = np.zeros(len(order), dtype=np.int64)
        node = leaf
        for g, (parent_N, option_N) in zip(order[::-1], reversed(history), strict=True):
            choice_G[g] = option_N[node]
            node = parent_N[node]
        if program.feasible(choice_G):
            return choice_G
    return None
