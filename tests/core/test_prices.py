"""Bounds and shadow prices: what the dual says of every choice, and what a limit is worth."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from small_problems import Case, cases, program_of

from adaptive.core import (
    Budget,
    ChoiceProblem,
    Workload,
    solve,
)
from adaptive.core.solvers import dual
from adaptive.core.testing import block_library


@given(case=cases())
@example(Case([[0, 1]], {"latency": [[10, 0]]}, {}, {"latency": {"max": 5}}, [], 1))
def test_the_dual_bounds_every_allowed_choice(case: Case):
    program = program_of(
        case.problem, case.budget, exclude=case.exclude, min_differences=case.min_differences
    )
    if (program.room_R < 0).any():
        return
    found = dual.ascend(program)
    optimum = case.optimum()
    assert program.unscale(found.bound) <= optimum + 1e-9
    if found.infeasible:
        assert optimum == math.inf
    assert (found.reduced_GK >= 0).all() and (found.multipliers_R >= 0).all()
    # A choice that takes an option has at least the option's own bound.
    for choice in case.choices():
        inside = program.translate(np.array(choice))
        if inside is not None and case.allowed(choice):
            worst = program.pick(found.reduced_GK, inside).max()
            assert program.unscale(found.bound + worst) <= case.problem.total_loss(choice) + 1e-9


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limits", [1, 2, 4])
def test_the_dual_reaches_the_linear_relaxation(limits, seed):
    from ortools.math_opt.python import mathopt

    problem = block_library(24, limits, seed=seed)
    program = program_of(problem, Budget(dict.fromkeys(problem.cost, "65%")))
    model = mathopt.Model()
    variables = {
        index: model.add_variable(lb=0.0)
        for index in zip(*np.nonzero(np.isfinite(program.loss_GK)), strict=True)
    }
    for g in range(program.shape[0]):
        model.add_linear_constraint(sum(v for (h, _), v in variables.items() if h == g) == 1)
    for use_GK, room in zip(program.use_RGK, program.room_R, strict=True):
        model.add_linear_constraint(
            sum(float(use_GK[i]) * v for i, v in variables.items()) <= float(room)
        )
    model.minimize(sum(float(program.loss_GK[i]) * v for i, v in variables.items()))
    relaxation = mathopt.solve(model, mathopt.SolverType.GLOP).objective_value()
    assert dual.ascend(program).bound == pytest.approx(relaxation, rel=1e-6)


def test_prices_of_a_problem_solved_by_hand():
    # The relaxation mixes both options of group "b": each second of latency saves a loss of 3.
    problem = ChoiceProblem(
        loss=[[0, 1], [0, 12]],
        cost={"latency": [[5, 4], [6, 2]], "memory": [[1, 1], [1, 1]]},
        workload=Workload(batch=1, prompt=70, output=0),
    )
    found = solve(problem, {"latency": 7, "memory": 50}, gap=0)
    assert found.choice.tolist() == [0, 1] and found.loss == 12
    assert found.price == {"latency": pytest.approx(3.0), "memory": 0.0}
    # In tokens/s: a limit of 10 means 7 s, and d latency / d throughput is 7 / 10 there.
    assert solve(problem, {"throughput": 10}).price["throughput"] == pytest.approx(2.1)
    # The same turned into a lower limit.
    upside_down = ChoiceProblem(problem.loss, {"params": 11 - problem.cost["latency"]})
    assert solve(upside_down, {"params": ">=15"}).price["params"] == pytest.approx(3.0)


@given(case=cases(exclude=False))
def test_prices_are_slopes_of_the_relaxed_optimum(case: Case):
    """By convexity, relaxing a limit by d lowers the relaxed optimum by at most price * d."""
    limits = case.budget.absolute(case.problem)
    program = program_of(case.problem, case.budget)
    if (program.room_R < 0).any() or dual.ascend(program).infeasible or case.optimum() == math.inf:
        return
    price = solve(case.problem, case.budget, gap=0).price
    before = program.unscale(dual.ascend(program).bound)
    for limit in limits:
        if sum(other.resource == limit.resource for other in limits) == 1:
            side = {"max": limit.value + 1} if limit.upper else {"min": max(0.0, limit.value - 1)}
            looser = Budget({**case.limits, limit.resource: side})
            after = program.unscale(dual.ascend(program_of(case.problem, looser)).bound)
            assert before - after <= price[limit.resource] * 1.0 + 1e-6


def test_prices_vanish_where_limits_do_not_bind():
    problem = block_library(12, 3)
    found = solve(problem, {"latency": "60%", "memory": "99%", "params": ">=1%"})
    assert found.price["latency"] > 0 and found.price["memory"] == found.price["params"] == 0
