"""The sentences that users read when a budget cannot be met."""

from __future__ import annotations

import pytest

from adaptive.core import SOLVERS, ChoiceProblem, InfeasibleError, UserError, Workload, solve

PROBLEM = ChoiceProblem(
    loss=[[0, 1, 2], [0, 1, 2]],
    cost={"latency": [[0.3, 0.2, 0.1]] * 2, "memory": [[1e9, 4e9, 8e9]] * 2},
    fixed={"latency": 0.05},
    workload=Workload(batch=1, prompt=100, output=0),
)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("budget", "settings", "sentence", "resource", "limit", "reachable"),
    [
        (
            {"latency": "200ms"},
            {},
            "budget.latency=200ms (latency <= 200 ms) cannot be met: the smallest latency that an "
            "allocation reaches is 250 ms",
            *("latency", 0.2, 0.25),
        ),
        (
            {"latency": "2.8x"},
            {},
            "budget.latency=2.8x (latency <= 232.1 ms) cannot be met: the smallest latency that an "
            "allocation reaches is 250 ms",
            *("latency", 0.65 / 2.8, 0.25),
        ),
        (
            {"memory": ">=20GB"},
            {},
            "budget.memory>=20GB (memory >= 18.63 GiB) cannot be met: the largest memory that an "
            "allocation reaches is 14.9 GiB",
            *("memory", 20e9, 16e9),
        ),
        (  # Each limit can be met alone, not both.
            {"latency": "0.56s", "memory": "4GB"},
            {},
            "budget.memory=4GB (memory <= 3.725 GiB) cannot be met: the smallest memory that an "
            "allocation within the other limits reaches is 4.657 GiB",
            *("memory", 4e9, 5e9),
        ),
        (
            {"throughput": 500},
            {},
            "budget.throughput=500 cannot be met: the largest throughput is 400 tok/s",
            *("throughput", 500, 400),
        ),
        (
            {"latency": "0.26s"},
            {"exclude": [[2, 2]], "min_differences": 1},
            "min_differences=1 cannot be met: an allocation within the other limits can differ "
            "from exclude[0] in 0 of 2 groups at most",
            *("min_differences", 1, 0),
        ),
    ],
)
def test_infeasible_budgets(solver, budget, settings, sentence, resource, limit, reachable):
    with pytest.raises(InfeasibleError) as error:
        solve(PROBLEM, budget, solver, **settings)
    assert str(error.value) == sentence
    assert error.value.resource == resource
    assert error.value.limit == pytest.approx(limit)
    assert error.value.reachable == pytest.approx(reachable)


def test_what_is_called_reachable_can_be_asked_for():
    with pytest.raises(InfeasibleError) as error:
        solve(PROBLEM, {"latency": "0.56s", "memory": "4GB"})
    assert solve(PROBLEM, {"latency": "0.56s", "memory": error.value.reachable}).loss == 1
    assert solve(PROBLEM, {"latency": "0.56s", "memory": "4.657 GiB"}).loss == 1


def test_of_two_impossible_limits_the_first_is_told():
    with pytest.raises(InfeasibleError, match="^budget.latency=1ms .* is 250 ms$") as error:
        solve(PROBLEM, {"latency": "1ms", "memory": "1KB"})
    assert error.value.resource == "latency"


def test_running_out_of_time_with_nothing_in_hand_is_said(monkeypatch):
    from adaptive.core.solvers import mip

    monkeypatch.setattr(mip, "incumbent", lambda *_: None)
    with pytest.raises(UserError, match="time_limit ran out before any allocation.*raise it"):
        solve(PROBLEM, {"latency": "0.56s"}, time_limit=1e-9)


def test_infeasible_is_a_users_error_and_both_are_value_errors():
    assert issubclass(InfeasibleError, UserError) and issubclass(UserError, ValueError)
