from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from small_problems import Case, cases

from adaptive.core import SOLVERS, Budget, ChoiceProblem, Frontier, InfeasibleError, frontier, solve
from adaptive.core.testing import block_library

SHARES = [70, 35, 50, 100, 42, 60]


@pytest.mark.parametrize("solver", sorted(SOLVERS.keys() - {"exhaustive"}))
def test_a_looser_budget_never_loses_more(solver):
    problem = block_library(20, 2, seed=3)
    budgets = [Budget({"latency": f"{share}%", "memory": "60%"}) for share in SHARES]
    points = frontier(problem, budgets, solver=solver)
    assert [point.budget for point in points] == budgets
    losses = [points[i].allocation.loss for i in np.argsort(SHARES)]
    assert losses == sorted(losses, reverse=True)
    for share, (_, allocation, reason) in zip(SHARES, points, strict=True):
        assert reason == ""
        assert allocation.cost["latency"] <= share / 100 * problem.reference_cost["latency"]
        assert allocation.bound <= allocation.loss


@given(case=cases())
@settings(max_examples=50)
def test_a_frontier_agrees_with_single_solves(case: Case):
    names = list(case.problem.cost)
    budgets = [
        case.budget,
        Budget(),
        Budget({names[0]: 9}),
        case.budget,
        Budget({names[-1]: ">=4"}),
    ]
    points = frontier(case.problem, budgets, gap=0, **case.constraints)
    for budget, allocation, reason in points:
        try:
            alone = solve(case.problem, budget, gap=0, **case.constraints)
        except InfeasibleError as error:
            assert allocation is None and reason == str(error)
        else:
            assert allocation.loss == alone.loss and allocation.status == "optimal"


def test_infeasible_points_say_why_in_the_table():
    problem = ChoiceProblem([[0, 2]], {"latency": [[4, 1]]})
    points = frontier(problem, [{"latency": 0.5}, {"latency": 2}])
    rows = points.table()
    assert [row["status"] for row in rows] == ["infeasible", "optimal"]
    assert rows[0]["loss"] is None and "smallest latency" in rows[0]["reason"]
    assert rows[1]["budget"] == "latency=2" and rows[1]["loss"] == 2 and rows[1]["latency"] == 1
    assert rows[1]["price.latency"] == pytest.approx(2 / 3)
    assert set(rows[0]) == set(rows[1])
    assert len(points.feasible()) == 1


def test_the_plot_shows_every_allocation():
    impossible = {"latency": ">=200%"}
    budgets = [impossible, *({"latency": f"{share}%"} for share in SHARES)]
    points = frontier(block_library(6, 1), budgets)
    figure = points.plot("latency")
    drawn = [line.get_xydata() for axes in figure.axes for line in axes.lines]
    assert max(len(xy) for xy in drawn) == len(SHARES)
    assert figure.axes[0].get_xlabel() == "latency (s)"


def test_a_frontier_is_a_sequence_and_survives_json():
    problem = block_library(6, 1)
    points = frontier(problem, [{"latency": f"{share}%"} for share in SHARES])
    assert len(points) == len(SHARES) and isinstance(points[1:3], Frontier)
    assert points[-1].budget == Budget({"latency": "60%"})
    again = Frontier.from_json(json.loads(json.dumps(points.to_json(), allow_nan=False)))
    assert again.to_json() == points.to_json() and again.table() == points.table()
