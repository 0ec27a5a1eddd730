"""Why no choice meets a budget, in one sentence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Bool, Float

from adaptive.core.budget import Limit
from adaptive.core.choice import ChoiceProblem
from adaptive.core.errors import InfeasibleError, UserError
from adaptive.core.resource import format_quantity
from adaptive.core.solvers.program import SOLVERS, Program, Row, Start

# Share by which the "smallest value that can be reached" may lie above the true one.
_GAP = 1e-5
_SECONDS = 10.0


@dataclass(frozen=True)
class Difference:
    """Source of a diversity row: differ from ``exclude[index]`` in ``least`` groups or more."""

    index: int
    least: int


def explain(problem: ChoiceProblem, rows: Sequence[Row]) -> NoReturn:
    """Raises the error of a budget that is known to be infeasible.

    A limit that cannot be met even alone is named first; otherwise the first one that cannot be met
    together with those before it. What can be reached is found with all other limits kept if they
    can be, with those before it otherwise.

    Args:
        problem: the problem.
        rows: its limits, resources before diversity.

    Raises:
        InfeasibleError: always.
    """
    available_GK = problem.available
    alone = [row for row in rows if _uses(available_GK, row).min(1).sum() > row.limit]
    before: list[Row] = []
    if alone:
        culprit = alone[0]
    else:
        for culprit in rows:
            smallest = _smallest(available_GK, culprit, before)
            if smallest is None or smallest > culprit.limit:
                break
            before.append(culprit)
    others = [row for row in rows if row is not culprit]
    for kept in (others, [row for row in before if row is not culprit]):
        reached = _smallest(available_GK, culprit, kept)
        if reached is not None:
            raise _error(problem, culprit, reached, kept)
    raise _error(problem, culprit, float(_uses(available_GK, culprit).min(1).sum()), [])


def _uses(available_GK: Bool[np.ndarray, "G K"], row: Row) -> Float[np.ndarray, "G K"]:
    """A row's uses, +inf for options that are not available."""
    return np.where(available_GK, row.use_GK, np.inf)


def _smallest(
    available_GK: Bool[np.ndarray, "G K"], row: Row, others: Sequence[Row]
) -> float | None:
    """Smallest sum of a row's uses within other rows; None if those cannot be met."""
    use_GK = _uses(available_GK, row)
    program = Program.build(use_GK, others)
    if (program.room_R < 0).any():
        return None
    deadline = time.perf_counter() + _SECONDS
    try:
        answer = SOLVERS["mip"](program, gap=_GAP, deadline=deadline, start=Start())
    except UserError:  # out of time
        return None
    if answer is None:
        return None
    return float(program.pick(use_GK, program.original(answer.choice_G)).sum())


def _error(
    problem: ChoiceProblem, row: Row, reached: float, kept: Sequence[Row]
) -> InfeasibleError:
    within = " within the other limits" if kept else ""
    source: Any = row.source
    if isinstance(source, Difference):
        most = problem.num_groups - round(reached)
        return InfeasibleError(
            f"min_differences={source.least} cannot be met: an allocation{within} can differ from "
            f"exclude[{source.index}] in {most} of {problem.num_groups} groups at most",
            resource="min_differences",
            limit=source.least,
            reachable=most,
        )
    limit: Limit = source
    fixed = problem.fixed.get(limit.resource, 0.0)
    value = fixed + reached if limit.upper else fixed - reached
    if limit.rate is not None and problem.workload is not None:
        rate, name = problem.workload.tokens / value, "throughput"
        side, toward = ("largest", "down") if limit.upper else ("smallest", "up")
        shown = format_quantity(rate, name, toward=toward)
        message = f"{limit.setting} cannot be met: the {side} throughput{within} is {shown}"
        return InfeasibleError(message, resource=name, limit=limit.rate, reachable=rate)
    side, toward = ("smallest", "up") if limit.upper else ("largest", "down")
    shown, name = format_quantity(value, limit.resource, toward=toward), limit.resource
    asked = format_quantity(limit.value, name)
    sign = "<=" if limit.upper else ">="
    return InfeasibleError(
        f"{limit.setting} ({name} {sign} {asked}) cannot be met: the {side} {name} that an "
        f"allocation{within} reaches is {shown}",
        resource=name,
        limit=limit.value,
        reachable=value,
    )
