"""Finding the child: allocation, the check of its promise on the device, baselines, frontier."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from adaptive.core import (
    Allocation,
    Budget,
    ChoiceProblem,
    InfeasibleError,
    UserError,
    frontier,
    solve_best,
)
from adaptive.core.blockwise.baselines import BASELINES
from adaptive.core.frontier import Frontier

TOLERANCE = 0.003  # relative excess that counts as met: clocks cannot tell it apart
UNUSED = 0.03  # of a limit, from which on a tightened search is loosened again


class SearchConfig(Protocol):
    """The settings that a search reads: a family's own dataclass has them.

    Attributes:
        solver, gap, time_limit: as of ``core.solve``.
    """

    solver: str
    gap: float
    time_limit: float


@dataclass(frozen=True)
class Found:
    """The answer of a search, its losses relative to the model that scores were taken around.

    Attributes:
        batch: batch size of the best allocation.
        problem: at that batch size.
        allocation: the answer with its certificate.
        limits: absolute limits at which it was found, tightened where a promise was not kept.
        budget: the budget as asked.
        promises: one record a check of the search: predicted and measured latency, and the limit.
        promise: of them, that of this allocation; None if none was needed.
    """

    batch: int
    problem: ChoiceProblem
    allocation: Allocation
    limits: Budget
    budget: Budget
    promises: list[dict[str, float]]
    promise: dict[str, float] | None = None

    @property
    def met(self) -> bool:
        """Whether the check found the latency within the limit (true if none was needed)."""
        if self.promise is None:
            return True
        return self.promise["measured"] <= self.promise["limit"] * (1 + TOLERANCE)

    @property
    def spare(self) -> float:
        """Part of the latency limit that the check found unused; negative where it is exceeded."""
        assert self.promise is not None, "nothing was measured"
        return 1 - self.promise["measured"] / self.promise["limit"]


def search(
    problems: dict[int, ChoiceProblem],
    budget: Budget,
    config: SearchConfig,
    measure: Callable[[int, np.ndarray], float] | None = None,
    attempts: int = 2,
    exclude: Sequence[np.ndarray] = (),
    diversity: float = 1.0,
) -> Found:
    """The best allocation over batch sizes whose latency, measured, is within the budget.

    A predicted latency is a sum of medians and may be some percent off. So the chosen architecture
    is timed on the device, and if it misses a latency limit, the limit is tightened by the factor
    that it was missed by and the search repeated. Another architecture may be off by another
    factor: where the tightened one leaves more than ``UNUSED`` of the limit, the next search goes
    by its factor. Of those within the limit the one of least predicted loss is kept.

    Args:
        problems: batch size to problem.
        budget: the limits.
        config: solver, gap and time limit.
        measure: (batch size, choice) to measured latency in seconds; ``None`` checks nothing.
        attempts: searches after the first one, at most.
        exclude: earlier choices to share ``diversity`` of the searched layers with, at most.
        diversity: 1 asks for any difference.
    """
    limits, promises = budget, []
    least = min_differences(next(iter(problems.values())), diversity)
    tried: list[np.ndarray] = []
    kept: Found | None = None
    for attempt in range(attempts + 1):
        try:
            batch, allocation = solve_best(
                problems,
                limits,
                solver=config.solver,
                gap=config.gap,
                time_limit=config.time_limit,
                exclude=exclude,
                min_differences=least,
            )
        except InfeasibleError:
            if kept is None or not kept.met:
                raise
            break  # loosened, then tightened beyond reach
        found = Found(batch, problems[batch], allocation, limits, budget, promises)
        limit = budget.resolve(problems[batch]).get("latency")
        if measure is None or limit is None or limit.max is None:
            return found
        if any(np.array_equal(allocation.choice, choice) for choice in tried):
            break
        tried.append(allocation.choice)
        measured = measure(batch, allocation.choice)
        predicted = allocation.cost["latency"]
        promises.append({"predicted": predicted, "measured": measured, "limit": limit.max})
        found = replace(found, promise=promises[-1])
        if kept is None or _better(found, kept):
            kept = found
        if found.met and (attempt == 0 or found.spare <= UNUSED):
            break
        # What was predicted within the limit took measured / predicted as long. The new limit is
        # an absolute one of this batch size, so the others are out.
        problems = {batch: problems[batch]}
        limits = tighten(budget, problems[batch], limit.max * predicted / measured)
    assert kept is not None, "the first attempt is always measured"
    return kept


def _better(found: Found, kept: Found) -> bool:
    """Whether an answer replaces the one before: within the limit first, then by loss."""
    if found.met and kept.met:
        return found.allocation.loss < kept.allocation.loss
    return not kept.met  # two that miss it: the later one was searched more tightly


def min_differences(problem: ChoiceProblem, diversity: float) -> int:
    """Layers in which two solutions have to differ, so that they share ``diversity`` at most.

    Layers without a choice are not counted (Puzzle's ``sum x * y <= alpha * L``).
    """
    searched = int((problem.available.sum(1) > 1).sum())
    return max(1, searched - math.floor(diversity * searched + 1e-9))


def tighten(budget: Budget, problem: ChoiceProblem, latency: float) -> Budget:
    """The budget in absolute terms with a smaller latency limit, in seconds."""
    limits: dict[str, Any] = {
        name: {"min": low, "max": high} for name, (low, high) in budget.resolve(problem).items()
    }
    limits["latency"]["max"] = latency
    return Budget(limits)


def baseline(
    name: str,
    found: Found,
    seed: int,
    measure: Callable[[int, np.ndarray], float] | None = None,
    attempts: int = 2,
) -> tuple[np.ndarray | None, str]:
    """A baseline's choice at the budget of the search, its measured latency held to it as well.

    It begins at the limits that the search ended with, which are tightened or loosened by what it
    measures itself.

    Returns:
        (choice, ""), or (None, why there is none).
    """
    limits, kept, kept_met = found.limits, None, False
    for _ in range(attempts + 1):
        choice = BASELINES[name](found.problem, limits, seed)
        if choice is None and kept_met:
            break  # loosened, then tightened beyond reach
        if choice is None:
            return None, f"no {name} choice from this library meets the budget ({limits})"
        limit = found.budget.resolve(found.problem).get("latency")
        if measure is None or limit is None or limit.max is None:
            return choice, ""
        if kept is not None and np.array_equal(choice, kept):
            break
        measured = measure(found.batch, choice)
        met = measured <= limit.max * (1 + TOLERANCE)
        lower = kept is None or found.problem.total_loss(choice) < found.problem.total_loss(kept)
        if not kept_met or (met and lower):
            kept, kept_met = choice, met
        if met and measured >= limit.max * (1 - UNUSED):
            break
        predicted = found.problem.total(choice)["latency"]
        limits = tighten(found.budget, found.problem, limit.max * predicted / measured)
    return kept, ""


def latency_points(
    problem: ChoiceProblem, parts: list[float], config: SearchConfig, budget: Budget
) -> Frontier:
    """The allocations behind :func:`latency_frontier`, the tightest limit first."""
    others = {name: value for name, value in budget.limits.items() if name != "latency"}
    others.pop("throughput", None)
    budgets = [Budget({**others, "latency": f"{100 * part:g}%"}) for part in sorted(parts)]
    return frontier(problem, budgets, solver=config.solver, gap=config.gap)


def latency_frontier(
    problem: ChoiceProblem,
    parts: list[float],
    config: SearchConfig,
    budget: Budget,
    base: float = 0.0,
) -> list[dict[str, Any]]:
    """Optimal loss at several parts of the parent's latency, other limits as they are.

    Args:
        problem: at one batch size.
        parts: of the reference's latency.
        config: solver and gap.
        budget: limits on other resources.
        base: what the losses are relative to, added to them.

    Returns:
        Rows of a table: ``latency`` (s), ``speedup``, ``loss``, ``bound``, ``price`` (loss that a
        second more would save) and ``choice`` ([G] options), or the reason why there is none.
    """
    reference = problem.reference_cost["latency"]
    rows = []
    for point in latency_points(problem, parts, config, budget):
        row: dict[str, Any] = {"budget": str(point.budget), "reason": point.reason}
        if point.allocation is not None:
            latency = point.allocation.cost["latency"]
            row |= {
                "latency": latency,
                # A child of no-ops alone takes no time where embedding and head are not priced.
                "speedup": reference / latency if latency else None,
                "loss": base + point.allocation.loss,
                "bound": base + point.allocation.bound,
                "price": point.allocation.price.get("latency", 0.0),
                "choice": point.allocation.choice.tolist(),
            }
        rows.append(row)
    if not rows:
        raise UserError("search.frontier is empty: list parts of the latency, such as [0.8, 0.6]")
    return rows
