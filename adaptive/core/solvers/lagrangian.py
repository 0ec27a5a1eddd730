"""Lagrangian solver: a certified bound and a choice close to it, in milliseconds, NumPy alone."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int

from adaptive.core.solvers.core_search import close_gap, enumerate_core
from adaptive.core.solvers.dual import Dual, ascend
from adaptive.core.solvers.local import improve, repair
from adaptive.core.solvers.program import SOLVERS, Answer, Program, Start

_WIDEST_BEAM = 20_000
_ENOUGH = 3


@SOLVERS.register("lagrangian")
def lagrangian(program: Program, *, gap: float, deadline: float, start: Start) -> Answer | None:
    """Dual ascent, local search around its choices, and enumeration of a small core.

    Promises no gap, but closes 1e-4 on most block libraries.
    """
    dual = ascend(program, start.multipliers_R, deadline)
    choice_G = None if dual.infeasible else incumbent(program, dual, gap, deadline, start)
    if choice_G is None:
        return None
    choice_G, bound = close_gap(program, dual, choice_G, gap, _WIDEST_BEAM, deadline)
    return Answer(choice_G, bound, dual.multipliers_R)


def incumbent(
    program: Program, dual: Dual, gap: float, deadline: float, start: Start
) -> Int[np.ndarray, " G"] | None:
    """The best feasible choice around those of the dual and of an earlier search, or None."""
    earlier = (program.translate(choice_G) for choice_G in start.choices)
    found = [
        choice_G for choice_G in earlier if choice_G is not None and program.feasible(choice_G)
    ]
    enough = len(found) + _ENOUGH
    for choice_G in (*dual.trail, program.loss_GK.argmin(1)):
        choice_G = repair(program, choice_G, dual.reduced_GK)
        if choice_G is not None:
            found.append(improve(program, choice_G))
            if len(found) == enough or program.gap(program.loss(found[-1]), dual.bound) <= gap:
                break
    if not found:
        choice_G = enumerate_core(program, dual, math.inf, 300, deadline).choice_G
        found = [] if choice_G is None else [improve(program, choice_G)]
    return min(found, key=program.loss, default=None)
