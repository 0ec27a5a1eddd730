"""Certified solver: what the Lagrangian leaves open goes to a small integer program.

1. The dual gives a bound and reduced costs, local search and enumeration of the core a feasible
   choice (the incumbent). On block libraries that usually closes the gap in milliseconds.
2. An option whose Lagrangian bound (dual bound plus its reduced cost) is not below what would close
   the gap cannot be part of a worthwhile choice and is dropped. What remains is the core.
3. OR-tools MathOpt solves the core; the bound is the smaller of the core's and the dropped's.

A solver's tolerances may accept a choice that breaks a limit by a millionth. Such a choice is cut
off by itself and the core solved again, so answers are feasible and the bound stays true.

Shapes: G groups, K options, R rows, C core options.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry
from adaptive.core.solvers.core_search import close_gap
from adaptive.core.solvers.dual import ascend
from adaptive.core.solvers.lagrangian import incumbent
from adaptive.core.solvers.program import SOLVERS, Answer, Program, Start
from adaptive.core.solvers.silence import silenced

if TYPE_CHECKING:
    from ortools.math_opt.python import mathopt

# MathOpt's name of each backend.
BACKENDS: Registry[str] = Registry("backend of solver=mip")
for _name, _solver_type in (("highs", "HIGHS"), ("cpsat", "CP_SAT"), ("scip", "GSCIP")):
    BACKENDS.register(_name)(_solver_type)

# Resolution of the integers that CP-SAT sees: a row's range, or the distance to the dual bound.
_INTEGER_RANGE = 2.0**36
# An absolute gap that the first feasible choice meets.
_ANY_GAP = 1e18


@SOLVERS.register("mip")
def mip(
    program: Program,
    *,
    gap: float,
    deadline: float,
    start: Start,
    backend: str = "highs",
    threads: int | None = None,
    beam: int = 160_000,
) -> Answer | None:
    """Lagrangian and enumeration first, then branch and bound on the core that remains.

    Args:
        program: the scaled problem.
        gap: relative gap to reach.
        deadline: value of ``time.perf_counter()`` at which to stop.
        start: leftovers of an earlier search.
        backend: "highs" (HiGHS), "cpsat" (CP-SAT) or "scip" (SCIP).
        threads: threads of the backend; its own default if None.
        beam: the widest beam of the enumeration; 0 leaves all the work to the backend.

    Returns:
        The answer, or None only when it is proven that no choice is feasible.

    Raises:
        UserError: for an unknown backend, or if time runs out before any feasible choice is found.
    """
    solver_type = BACKENDS[backend]
    dual = ascend(program, start.multipliers_R, deadline)
    if dual.infeasible:
        return None
    best_G = incumbent(program, dual, gap, deadline, start)
    if best_G is None:
        core = _Core(program, np.isfinite(program.loss_GK), math.inf, solver_type)
        found = core.solve(math.inf, deadline, threads)
        if found.choice_G is None:
            if found.exhausted:
                raise UserError(
                    "time_limit ran out before any allocation within the budget was found: raise it"
                )
            return None
        best_G = found.choice_G
    best_G, bound = close_gap(program, dual, best_G, gap, beam, deadline)
    best = program.loss(best_G)
    if program.gap(best, bound) <= gap:
        return Answer(best_G, bound, dual.multipliers_R)

    tolerance = program.closing_distance(best, gap)
    option_bound_GK = np.where(np.isfinite(program.loss_GK), dual.bound + dual.reduced_GK, math.inf)
    core_GK = option_bound_GK < best - tolerance
    core = _Core(program, core_GK, best - dual.bound, solver_type)
    found = core.solve(tolerance, deadline, threads)
    if found.choice_G is not None and program.loss(found.choice_G) < best:
        best_G, best = found.choice_G, program.loss(found.choice_G)
    dropped = float(option_bound_GK[~core_GK].min(initial=math.inf))
    bound = min(max(bound, min(found.bound, dropped)), best)
    return Answer(best_G, bound, dual.multipliers_R, found.exhausted)


class _Found(NamedTuple):
    choice_G: Int[np.ndarray, " G"] | None
    bound: float
    exhausted: bool


class _Core:
    """The remaining options as a MathOpt model, in units that make a solver's tolerances small."""

    def __init__(
        self,
        program: Program,
        core_GK: Bool[np.ndarray, "G K"],
        distance: float,
        solver_type: str,
    ):
        from ortools.math_opt.python import mathopt

        self.mathopt, self.program, self.solver_type = mathopt, program, solver_type
        G = program.shape[0]
        integer = solver_type == "CP_SAT"
        self.model = mathopt.Model()
        self.groups_C, self.options_C = np.nonzero(core_GK)
        loss_C = program.loss_GK[self.groups_C, self.options_C]
        low_G = np.where(core_GK, program.loss_GK, np.inf).min(1)
        self.base = float(low_G.sum())
        extra_C = loss_C - low_G[self.groups_C]
        # One unit of the model's objective, in scaled loss: a fine part of the distance to close,
        # but not so fine that coefficients leave the range of integers (or of sane floats).
        total = float(extra_C.sum()) or 1.0
        reach = max(min(distance, total), 2.0**-18 * total)
        self.unit = reach / (_INTEGER_RANGE if integer else 1e3)
        coefficient_C = extra_C / self.unit
        # Rounded down, as the rows below: the bound stays a bound.
        coefficient_C = np.floor(coefficient_C) if integer else coefficient_C
        self.variables = [self.model.add_binary_variable() for _ in self.groups_C]
        self.model.minimize(self._sum(coefficient_C))
        for g in range(G):
            members = np.flatnonzero(self.groups_C == g)
            self.model.add_linear_constraint(
                mathopt.fast_sum([self.variables[c] for c in members]) == 1
            )
        for r, room in enumerate(program.room_R):
            if room < 1:
                self._add_row(program.use_RGK[r], room, core_GK, integer)

    def _sum(self, coefficient_C: np.ndarray) -> Any:
        terms = zip(coefficient_C.tolist(), self.variables, strict=True)
        return self.mathopt.fast_sum([value * variable for value, variable in terms if value])

    def _add_row(self, use_GK: np.ndarray, room: float, core_GK: np.ndarray, integer: bool) -> None:
        low_G = np.where(core_GK, use_GK, np.inf).min(1)
        use_C = use_GK[self.groups_C, self.options_C] - low_G[self.groups_C]
        if not use_C.any():
            room_left = room - low_G.sum()
            if room_left < 0:  # no core choice keeps this row
                self.model.add_linear_constraint(self._sum(np.ones(len(use_C))) <= 0)
            return
        largest = use_C.max()
        use_C, room = use_C / largest, (room - float(low_G.sum())) / largest
        if integer:
            use_C, room = np.floor(use_C * _INTEGER_RANGE), math.floor(room * _INTEGER_RANGE)
        else:
            use_C, room = use_C * 1e3, room * 1e3
        self.model.add_linear_constraint(self._sum(use_C) <= room)

    def solve(self, tolerance: float, deadline: float, threads: int | None) -> _Found:
        """A core choice with a scaled loss within ``tolerance`` of the best, and a bound on all."""
        mathopt, program = self.mathopt, self.program
        while True:
            seconds = deadline - time.perf_counter()
            if seconds <= 0:
                return _Found(None, -math.inf, True)
            # HiGHS prints from C whatever it is told.
            with silenced() if self.solver_type == "HIGHS" else contextlib.nullcontext():
                result = mathopt.solve(
                    self.model,
                    mathopt.SolverType[self.solver_type],
                    params=self._parameters(tolerance, seconds, threads),
                )
            reason = result.termination.reason
            if reason in (
                mathopt.TerminationReason.INFEASIBLE,
                mathopt.TerminationReason.INFEASIBLE_OR_UNBOUNDED,  # binaries are bounded
            ):
                return _Found(None, math.inf, False)
            exhausted = reason != mathopt.TerminationReason.OPTIMAL
            bound = self.base + self.unit * result.best_objective_bound()
            if not result.has_primal_feasible_solution():
                return _Found(None, bound, exhausted)
            value_C = np.array(result.variable_values(self.variables))
            taken_C = np.flatnonzero(value_C > 0.5)
            choice_G = np.zeros(program.shape[0], dtype=np.int64)
            choice_G[self.groups_C[taken_C]] = self.options_C[taken_C]
            if program.feasible(choice_G):
                return _Found(choice_G, bound, exhausted)
            cut = mathopt.fast_sum([self.variables[c] for c in taken_C])
            self.model.add_linear_constraint(cut <= program.shape[0] - 1)

    def _parameters(
        self, tolerance: float, seconds: float, threads: int | None
    ) -> mathopt.SolveParameters:
        parameters = self.mathopt.SolveParameters(
            time_limit=datetime.timedelta(seconds=min(seconds, 1e6)),
            threads=threads,
            # The model's objective is shifted, so a relative gap has another meaning there.
            relative_gap_tolerance=0.0,
            absolute_gap_tolerance=min(0.98 * tolerance / self.unit, _ANY_GAP),
        )
        if self.solver_type == "HIGHS":
            parameters.highs.double_options["mip_feasibility_tolerance"] = 1e-9
            parameters.highs.double_options["primal_feasibility_tolerance"] = 1e-9
        return parameters
