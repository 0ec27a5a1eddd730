"""Marginal-ratio greedy: the least loss per saving first."""

from __future__ import annotations

from adaptive.core.solvers.dual import ascend
from adaptive.core.solvers.local import improve, repair
from adaptive.core.solvers.program import SOLVERS, Answer, Program, Start


@SOLVERS.register("greedy")
def greedy(program: Program, *, gap: float, deadline: float, start: Start) -> Answer | None:
    """From the choice of least loss, takes the move with the least loss per excess removed until
    the budget is met, then any single moves that still fit and lower the loss.

    A baseline: it promises no gap. Its bound is the Lagrangian one.
    """
    choice_G = repair(program, program.loss_GK.argmin(1))
    if choice_G is None:
        return None
    choice_G = improve(program, choice_G)
    dual = ascend(program, start.multipliers_R, deadline)
    return Answer(choice_G, min(dual.bound, program.loss(choice_G)), dual.multipliers_R)
