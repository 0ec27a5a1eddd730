"""Small problems, and their solution by trying everything."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from hypothesis import strategies as st

from adaptive.core import Budget, ChoiceProblem
from adaptive.core.solvers.program import Program
from adaptive.core.solvers.search import Search

RESOURCES = ("latency", "memory", "params")


@dataclass
class Case:
    """A problem with its limits, in plain numbers; costs are whole, so sums are exact."""

    loss: list[list[float]]
    cost: dict[str, list[list[int]]]
    fixed: dict[str, int]
    limits: dict[str, Any]
    exclude: list[list[int]]
    min_differences: int

    @cached_property
    def problem(self) -> ChoiceProblem:
        return ChoiceProblem(self.loss, self.cost, fixed=self.fixed)

    @cached_property
    def budget(self) -> Budget:
        return Budget(self.limits)

    @property
    def constraints(self) -> dict[str, Any]:
        return {"exclude": self.exclude, "min_differences": self.min_differences}

    def allowed(self, choice: Any, without: str = "") -> bool:
        """Whether a choice keeps every limit, except those on one resource."""
        cost = self.problem.total(choice)
        for name, limit in self.limits.items():
            if name != without and not (
                limit.get("min", -math.inf) <= cost[name] <= limit.get("max", math.inf)
            ):
                return False
        different = [(np.asarray(choice) != earlier).sum() for earlier in self.exclude]
        return without == "min_differences" or min(different, default=99) >= self.min_differences

    def choices(self) -> list[tuple[int, ...]]:
        """Every choice of available options."""
        return list(itertools.product(*[np.flatnonzero(row) for row in self.problem.available]))

    def optimum(self) -> float:
        """Least loss of an allowed choice; inf if there is none."""
        losses = [self.problem.total_loss(c) for c in self.choices() if self.allowed(c)]
        return min(losses, default=math.inf)


@st.composite
def cases(draw, lower: bool = True, exclude: bool = True) -> Case:
    """Ragged groups, missing options, ties, negative losses, limits near a random choice's cost."""
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    entry = st.integers(0, 12)

    def table() -> list[list[int]]:
        return [draw(st.lists(entry, min_size=n, max_size=n)) for n in lengths]

    shift = draw(st.sampled_from([0, 0, -20, 5]))
    loss = [[(value + shift) / 4 for value in row] for row in table()]
    for row in loss:
        for k in range(1, len(row)):
            if draw(st.integers(0, 7)) == 0:
                row[k] = draw(st.sampled_from([math.inf, math.nan]))
    names = RESOURCES[: draw(st.integers(1, 3))]
    cost = {name: table() for name in names}
    fixed = {names[0]: draw(st.integers(0, 3))}
    aim = [
        draw(st.sampled_from([k for k, x in enumerate(row) if math.isfinite(x)])) for row in loss
    ]
    sides = ["max", "max", "min", "both", "none"] if lower else ["max", "max", "none"]
    limits: dict[str, Any] = {}
    for name in names:
        total = fixed.get(name, 0) + sum(r[k] for r, k in zip(cost[name], aim, strict=True))
        side = draw(st.sampled_from(sides))
        limit = {}
        if side in ("max", "both"):
            limit["max"] = max(0, total + draw(st.integers(-2, 3)))
        if side in ("min", "both"):
            limit["min"] = max(0, total + draw(st.integers(-5, 1)))
        if limit.get("min", -1) <= limit.get("max", 99) and limit:
            limits[name] = limit
    earlier = st.tuples(*[st.integers(0, n - 1) for n in lengths]).map(list)
    return Case(
        loss,
        cost,
        fixed,
        limits,
        draw(st.lists(earlier, max_size=2)) if exclude else [],
        draw(st.integers(1, len(lengths))),
    )


def program_of(problem: ChoiceProblem, budget: Budget, **settings) -> Program:
    """The program that a search hands to a solver."""
    search = Search(
        problem,
        "mip",
        0.0,
        60.0,
        **({"exclude": (), "min_differences": None} | settings),
        options={},
    )
    return search.program(search.rows(budget.absolute(problem)))
