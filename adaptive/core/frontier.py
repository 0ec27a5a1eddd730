"""The same problem under many budgets: the Pareto frontier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from adaptive.core.budget import Budget
from adaptive.core.choice import Allocation, ChoiceProblem
from adaptive.core.errors import InfeasibleError
from adaptive.core.resource import RESOURCES
from adaptive.core.solvers.program import Start
from adaptive.core.solvers.search import Search

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FrontierPoint(NamedTuple):
    """One budget with its allocation, or None and the reason why there is none."""

    budget: Budget
    allocation: Allocation | None
    reason: str = ""


class Frontier(Sequence[FrontierPoint]):
    """Points in the order of the budgets that were asked for."""

    def __init__(self, points: Iterable[FrontierPoint]):
        self.points = tuple(points)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> Any:
        return Frontier(self.points[index]) if isinstance(index, slice) else self.points[index]

    def __iter__(self) -> Iterator[FrontierPoint]:
        return iter(self.points)

    def feasible(self) -> list[FrontierPoint]:
        """The points that have an allocation."""
        return [point for point in self.points if point.allocation is not None]

    def table(self) -> list[dict[str, Any]]:
        """One row a point: budget, loss, bound, gap, costs, ``price.<resource>``, status, seconds.

        Rows of infeasible budgets have status "infeasible" and the reason. Missing entries are
        None.
        """
        rows = [self._row(point) for point in self.points]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return [{name: row.get(name) for name in names} for row in rows]

    @staticmethod
    def _row(point: FrontierPoint) -> dict[str, Any]:
        row: dict[str, Any] = {"budget": str(point.budget)}
        if point.allocation is None:
            return row | {"status": "infeasible", "reason": point.reason}
        a = point.allocation
        row |= {"loss": a.loss, "bound": a.bound, "gap": a.gap, **a.cost}
        row |= {f"price.{name}": price for name, price in a.price.items()}
        return row | {"status": a.status, "seconds": a.seconds}

    def plot(self, resource: str) -> Figure:
        """Loss against one resource, in that resource's unit; see ``core.report.plots``."""
        from adaptive.core.report.plots import frontier_plot

        points = [(a.cost[resource], a.loss) for _, a, _ in self.points if a is not None]
        return frontier_plot(points, x=f"{resource} ({RESOURCES[resource].unit})", y="loss")

    def to_json(self) -> list[dict[str, Any]]:
        """A plain JSON list."""
        return [
            {
                "budget": point.budget.to_json(),
                "allocation": point.allocation.to_json() if point.allocation else None,
                "reason": point.reason,
            }
            for point in self.points
        ]

    @classmethod
    def from_json(cls, data: Iterable[Mapping[str, Any]]) -> Frontier:
        """Inverse of :meth:`to_json`."""
        return cls(
            FrontierPoint(
                Budget.from_json(entry["budget"]),
                Allocation.from_json(entry["allocation"]) if entry["allocation"] else None,
                entry["reason"],
            )
            for entry in data
        )


def frontier(
    problem: ChoiceProblem,
    budgets: Iterable[Budget | Mapping[str, Any]],
    solver: str = "mip",
    gap: float = 1e-4,
    time_limit: float = 60.0,
    exclude: Iterable[Any] = (),
    min_differences: int | None = None,
    **options: Any,
) -> Frontier:
    """Solves a problem for many budgets, each search starting from the one before.

    Budgets are visited from the tightest to the loosest. Pruned options are shared, multipliers
    carry over, and every earlier allocation that a budget allows is a candidate for it: a looser
    budget never ends with a larger loss than a tighter one on the same resources.

    Args:
        problem: the problem.
        budgets: the budgets, in any order.
        solver, gap, exclude, min_differences, **options: as for :func:`adaptive.core.solve`.
        time_limit: seconds for each budget.

    Returns:
        A point for each budget in the order given; infeasible ones say why.
    """
    search = Search(problem, solver, gap, time_limit, exclude, min_differences, options)
    asked = [budget if isinstance(budget, Budget) else Budget(budget) for budget in budgets]
    programs = [search.program(search.rows(b.absolute(problem))) for b in asked]
    keys = [tuple(str(row.key) for row in program.rows) for program in programs]
    order = sorted(range(len(asked)), key=lambda i: (keys[i], float(np.sum(programs[i].room_R))))
    points: list[FrontierPoint | None] = [None] * len(asked)
    start, previous = Start(), None
    for i in order:
        if keys[i] != previous:  # multipliers belong to rows
            start, previous = Start(choices=start.choices), keys[i]
        try:
            allocation, start = search.run(asked[i], start)
            points[i] = FrontierPoint(asked[i], allocation)
        except InfeasibleError as error:
            points[i] = FrontierPoint(asked[i], None, str(error))
    return Frontier(point for point in points if point is not None)
