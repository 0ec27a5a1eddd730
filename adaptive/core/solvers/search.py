"""From a problem and a budget to an allocation: :func:`solve`, :func:`solve_best`."""

from __future__ import annotations

import inspect
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int

from adaptive.core.budget import Budget, Limit
from adaptive.core.choice import Allocation, ChoiceProblem
from adaptive.core.errors import InfeasibleError, UserError
from adaptive.core.solvers.infeasible import Difference, explain
from adaptive.core.solvers.program import SOLVERS, ZERO_GAP, Answer, Program, Row, Start

Key = TypeVar("Key", bound=Hashable)

# Share of a problem's losses by which a bound is lowered, so that rounding cannot make it untrue.
_ROUNDING = 1e-13


def solve(
    problem: ChoiceProblem,
    budget: Budget | Mapping[str, Any],
    solver: str = "mip",
    gap: float = 1e-4,
    time_limit: float = 60.0,
    exclude: Iterable[Any] = (),
    min_differences: int | None = None,
    **options: Any,
) -> Allocation:
    """Least loss within a budget, with a certificate.

    Args:
        problem: groups, options, losses and costs.
        budget: the limits, a :class:`Budget` or what makes one.
        solver: "mip" (certified), "lagrangian" (milliseconds, NumPy alone), "greedy" (a baseline)
            or "exhaustive" (small problems).
        gap: relative gap between loss and bound at which a certified solver may stop; 0 asks for
            the optimum.
        time_limit: seconds of search.
        exclude: earlier allocations (or choices) to keep away from.
        min_differences: number of groups that must differ from each of them; a fifth of the groups
            if left out (Puzzle's alpha = 0.8).
        **options: of the solver; "mip" takes ``backend`` ("highs", "cpsat" or "scip"), ``threads``
            and ``beam``, see :mod:`adaptive.core.solvers.mip`.

    Returns:
        The allocation. Its gap is at most the one asked for, or its status is not "optimal".

    Raises:
        InfeasibleError: if no choice meets the budget; names a limit and what can be reached.
        UserError: for settings that make no sense, or if time runs out without any allocation.
    """
    search = Search(problem, solver, gap, time_limit, exclude, min_differences, options)
    return search.run(budget)[0]


def solve_best(
    problems: Mapping[Key, ChoiceProblem], budget: Budget | Mapping[str, Any], **settings: Any
) -> tuple[Key, Allocation]:
    """The best allocation over several versions of a problem, usually batch sizes.

    Relative limits refer to each problem's own reference, throughputs in tokens/s to its workload.

    Args:
        problems: problem by key, for example by batch size.
        budget: the limits.
        **settings: as for :func:`solve`; the time limit holds for each problem.

    Returns:
        Key of the problem whose allocation has the least loss, and that allocation.

    Raises:
        InfeasibleError: if every problem is infeasible; the one of the nearest miss is told.
    """
    if not problems:
        raise UserError("solve_best needs one problem at least")
    best: tuple[Key, Allocation] | None = None
    misses: list[tuple[float, Key, InfeasibleError]] = []
    for key, problem in problems.items():
        try:
            allocation = solve(problem, budget, **settings)
        except InfeasibleError as error:
            miss = abs(error.limit - error.reachable) / max(abs(error.limit), 1e-300)
            misses.append((miss, key, error))
            continue
        if best is None or allocation.loss < best[1].loss:
            best = key, allocation
    if best is not None:
        return best
    _, key, error = min(misses, key=lambda miss: miss[0])
    if len(problems) == 1:
        raise error
    keys = ", ".join(map(str, problems))
    raise InfeasibleError(
        f"no problem of {keys} meets the budget, {key} comes nearest: {error}",
        resource=error.resource,
        limit=error.limit,
        reachable=error.reachable,
    )


class Search:
    """One problem and one way of solving it, for any number of budgets.

    Keeps pruned programs, so that budgets on the same resources share them.
    """

    def __init__(
        self,
        problem: ChoiceProblem,
        solver: str,
        gap: float,
        time_limit: float,
        exclude: Iterable[Any],
        min_differences: int | None,
        options: Mapping[str, Any],
    ):
        if not gap >= 0:
            raise UserError(f"gap={gap} must be 0 or more")
        if not time_limit > 0:
            raise UserError(f"time_limit={time_limit} must be above 0 seconds")
        self.problem, self.gap, self.time_limit = problem, float(gap), float(time_limit)
        self.name, self.solver, self.options = solver, SOLVERS[solver], dict(options)
        for option in self.options.keys() - inspect.signature(self.solver).parameters.keys():
            raise UserError(f"solver={solver} has no option {option!r}")
        self.difference_rows = _difference_rows(problem, exclude, min_differences)
        self.programs: dict[tuple, Program] = {}

    def rows(self, limits: Sequence[Limit]) -> list[Row]:
        """Limits, then diversity, as rows."""
        rows = []
        for limit in limits:
            sign = 1.0 if limit.upper else -1.0
            room = limit.value - self.problem.fixed.get(limit.resource, 0.0)
            use_GK = sign * np.where(self.problem.available, self.problem.cost[limit.resource], 0.0)
            rows.append(Row(use_GK, sign * room, (limit.resource, limit.upper), limit))
        return rows + self.difference_rows

    def program(self, rows: Sequence[Row]) -> Program:
        """The program of ``rows``, built once for each set of limited resources."""
        keys = tuple(row.key for row in rows)
        if keys not in self.programs:
            self.programs[keys] = Program.build(self.problem.loss, rows)
        return self.programs[keys].limited(rows)

    def run(
        self, budget: Budget | Mapping[str, Any], start: Start | None = None
    ) -> tuple[Allocation, Start]:
        """Solves for one budget; also returns the start for a similar one."""
        begin = time.perf_counter()
        budget = budget if isinstance(budget, Budget) else Budget(budget)
        limits = budget.absolute(self.problem)
        program = self.program(self.rows(limits))
        if (program.room_R < 0).any():
            explain(self.problem, program.rows)
        start = start or Start()
        deadline = begin + self.time_limit
        answer = self.solver(
            program, gap=max(self.gap, ZERO_GAP / 2), deadline=deadline, start=start, **self.options
        )
        if answer is None and self.name not in ("mip", "exhaustive"):
            # Not found is not yet a proof: any feasible choice will do.
            answer = SOLVERS["mip"](program, gap=np.inf, deadline=deadline, start=start)
        if answer is None:
            explain(self.problem, program.rows)
        answer = _with_earlier(program, answer, start)
        allocation = self.allocation(program, limits, answer, begin)
        return allocation, Start(answer.multipliers_R, (*start.choices, allocation.choice))

    def allocation(
        self, program: Program, limits: Sequence[Limit], answer: Answer, begin: float
    ) -> Allocation:
        """The answer in the problem's terms."""
        problem = self.problem
        choice_G = program.original(answer.choice_G)
        loss = problem.total_loss(choice_G)
        rounding = _ROUNDING * program.loss_magnitude
        bound = program.unscale(answer.bound) - rounding
        bound = loss if loss - bound <= 2 * rounding else bound
        gap = (loss - bound) / max(abs(loss), 1e-9 * program.loss_magnitude, np.finfo(float).tiny)
        if gap <= self.gap + ZERO_GAP:
            status = "optimal"
        else:
            status = "time_limit" if answer.exhausted else "heuristic"
        return Allocation(
            choice=choice_G,
            loss=loss,
            cost=problem.total(choice_G),
            bound=bound,
            gap=gap,
            price=_prices(program, limits, answer),
            status=status,
            seconds=time.perf_counter() - begin,
            solver=self.name,
            groups=problem.groups,
            labels_G=tuple(problem.options[g][k] for g, k in enumerate(choice_G)),
        )


def _difference_rows(
    problem: ChoiceProblem, exclude: Iterable[Any], min_differences: int | None
) -> list[Row]:
    G = problem.num_groups
    least = max(1, -(-G // 5)) if min_differences is None else min_differences
    if isinstance(least, bool) or not isinstance(least, int) or least < 1:
        raise UserError(f"min_differences={min_differences!r} must be a whole number >= 1")
    if isinstance(exclude, Allocation):
        exclude = [exclude]
    rows = []
    for index, earlier in enumerate(exclude):
        same_GK = np.zeros(problem.loss.shape)
        same_GK[np.arange(G), problem.check_choice(earlier)] = 1.0
        rows.append(Row(same_GK, float(G - least), ("exclude", index), Difference(index, least)))
    return rows


def _with_earlier(program: Program, answer: Answer, start: Start) -> Answer:
    """The answer, or an earlier choice that is feasible and better (heuristics may miss it)."""
    best_G = answer.choice_G
    for original_G in start.choices:
        choice_G: Int[np.ndarray, " G"] | None = program.translate(original_G)
        if choice_G is not None and program.loss(choice_G) < program.loss(best_G):
            best_G = choice_G if program.feasible(choice_G) else best_G
    if best_G is answer.choice_G:
        return answer
    bound = min(answer.bound, program.loss(best_G))
    return Answer(best_G, bound, answer.multipliers_R, answer.exhausted)


def _prices(program: Program, limits: Sequence[Limit], answer: Answer) -> dict[str, float]:
    """Shadow prices of limited resources; both sides of a limit add up, one at most binds."""
    price: dict[str, float] = {}
    for r, limit in enumerate(limits):
        value = float(answer.multipliers_R[r] * program.loss_scale / program.use_scale_R[r])
        price[limit.resource] = price.get(limit.resource, 0.0) + value
        if limit.rate is not None:  # latency = tokens / rate
            price["throughput"] = price.get("throughput", 0.0) + value * limit.value / limit.rate
    return price
