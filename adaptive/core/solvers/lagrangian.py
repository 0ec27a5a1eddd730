"""Lagrangian solver: a certified bound and a feasible choice close to it, NumPy alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from adaptive.core.solvers.dual import Dual, ascend
from adaptive.core.solvers.local import improve, repair
from adaptive.core.solvers.program import SOLVERS, Answer, Program, Start

_POLISHED = 3


@SOLVERS.register("lagrangian")
def lagrangian(program: Program, *, gap: float, deadline: float, start: Start) -> Answer | None:
    """Dual ascent, then the minimising choices along the way are repaired and improved.

    Promises no gap, but usually reaches 1e-3 to 1e-4 in milliseconds.
    """
    dual = ascend(program, start.multipliers_R, deadline)
    choice_G = None if dual.infeasible else incumbent(program, dual, gap, deadline, start)
    if choice_G is None:
        return None
    return Answer(choice_G, min(dual.bound, program.loss(choice_G)), dual.multipliers_R)


def incumbent(
    program: Program, dual: Dual, gap: float, deadline: float, start: Start
) -> Int[np.ndarray, "G"] | None:
    """The best feasible choice that local search finds around the dual's choices, or None."""
    found = [repair(program, choice_G, dual.reduced_GK) for choice_G in dual.trail]
    if all(choice_G is None for choice_G in found):
        found.append(repair(program, program.loss_GK.argmin(1)))
    earlier = (program.translate(choice_G) for choice_G in start.choices)
    found += [choice_G for choice_G in earlier if choice_G is not None and program.feasible(choice_G)]
    feasible = {choice_G.tobytes(): choice_G for choice_G in found if choice_G is not None}
    best_G, best = None, np.inf
    for choice_G in sorted(feasible.values(), key=program.loss)[:_POLISHED]:
        choice_G = improve(program, choice_G, dual.reduced_GK, deadline)
        # Rounding may differ between the scaled and the raw sums: only the raw ones count.
        if program.loss(choice_G) < best and program.feasible(choice_G):
            best_G, best = choice_G, program.loss(choice_G)
        if program.gap(best, dual.bound) <= gap:
            break
    return best_G
