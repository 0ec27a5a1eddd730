from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core import Budget, ChoiceProblem, Cost, UserError, Workload

# Two groups; the reference costs 2 s, 100 bytes and 10 params, at 1200 tokens a batch.
PROBLEM = ChoiceProblem(
    loss=[[0, 1], [0, 1]],
    cost={
        "latency": [[1.0, 0.5], [1.0, 0.25]],
        "memory": [[40, 20], [40, 10]],
        "params": [[5, 2], [5, 1]],
    },
    fixed={"memory": 20},
    workload=Workload(batch=4, prompt=200, output=100),
)


@pytest.mark.parametrize(
    ("limits", "resolved"),
    [
        ({"latency": 1.5}, {"latency": (None, 1.5)}),
        ({"latency": "1500ms"}, {"latency": (None, 1.5)}),
        ({"latency": "60%"}, {"latency": (None, 1.2)}),
        ({"latency": "1.6x"}, {"latency": (None, 1.25)}),  # a speed-up
        ({"latency": "0.6x"}, {"latency": (None, 1.2)}),  # a multiple
        ({"latency": "1x"}, {"latency": (None, 2.0)}),
        ({"memory": "0.5x"}, {"memory": (None, 50.0)}),  # of the total, fixed part included
        ({"memory": "2x"}, {"memory": (None, 200.0)}),
        ({"params": ">=4"}, {"params": (4.0, None)}),
        ({"params": "<= 4"}, {"params": (None, 4.0)}),
        ({"params": ">=50%"}, {"params": (5.0, None)}),
        ({"params": {"min": "20%", "max": 8}}, {"params": (2.0, 8.0)}),
        ({"params": {"min": None, "max": 8}}, {"params": (None, 8.0)}),
        ({"throughput": 1000}, {"latency": (None, 1.2)}),  # 4 * 300 tokens
        ({"throughput": "1K tok/s"}, {"latency": (None, 1.2)}),
        ({"throughput": "1.6x"}, {"latency": (None, 1.25)}),
        ({"throughput": "80%"}, {"latency": (None, 2.5)}),
        ({"throughput": {"max": 1000}}, {"latency": (1.2, None)}),
        ({"latency": "1.5s", "throughput": 1000}, {"latency": (None, 1.2)}),  # the tighter one
        ({"latency": "1.1s", "throughput": 1000}, {"latency": (None, 1.1)}),
        ({"latency": None}, {}),
        ({}, {}),
    ],
)
def test_limits_in_absolute_numbers(limits, resolved):
    assert Budget(limits).resolve(PROBLEM) == resolved


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"latncy": 1}, "budget.latncy: unknown resource 'latncy'.*did you mean 'latency'"),
        ({"latency": "30 GiB"}, "budget.latency='30 GiB' has the unknown unit 'GiB'.*30ms.*60%"),
        ({"latency": "fast"}, "budget.latency='fast' is not a quantity"),
        ({"latency": "-1x"}, "budget.latency=-1x must be above 0"),
        ({"latency": "0%"}, "budget.latency=0% must be above 0"),
        ({"latency": -1}, "budget.latency=-1 must not be negative"),
        ({"throughput": 0}, "budget.throughput=0 must be above 0"),
        ({"latency": {"most": 1}}, "budget.latency.most is not a limit, use min and max"),
        ({"latency": True}, "budget.latency=True is not a finite number"),
    ],
)
def test_nonsense_is_refused_before_any_work(limits, said):
    with pytest.raises(UserError, match=said):
        Budget(limits)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"flops": 1}, "budget.flops=1: flops has no cost in this problem, which prices latency"),
        ({"params": {"min": 5, "max": 4}}, "budget.params.min=5 and budget.params.max=4 contra"),
    ],
)
def test_limits_that_do_not_fit_the_problem(limits, said):
    with pytest.raises(UserError, match=said):
        Budget(limits).resolve(PROBLEM)


def test_throughput_needs_a_workload_unless_it_is_relative():
    problem = ChoiceProblem([[0, 1]], {"latency": [[2.0, 1.0]]})
    assert Budget({"throughput": "2x"}).resolve(problem) == {"latency": (None, 1.0)}
    with pytest.raises(UserError, match="budget.throughput=10 needs a workload"):
        Budget({"throughput": 10}).resolve(problem)
    with pytest.raises(UserError, match="throughput needs a cost for latency"):
        Budget({"throughput": 10}).resolve(ChoiceProblem([[0, 1]], {"params": [[2.0, 1.0]]}))


def test_relative_limits_need_a_reference_that_costs_something():
    free = ChoiceProblem([[0, 1]], {"latency": [[0.0, 1.0]]})
    with pytest.raises(UserError, match="reference's latency is 0.0; write an absolute limit"):
        Budget({"latency": "60%"}).resolve(free)


@given(share=st.floats(0.01, 1.0))
def test_a_share_and_a_multiple_below_one_agree(share):
    as_share = Budget({"latency": f"{100 * share!r}%"}).resolve(PROBLEM)["latency"].max
    as_factor = Budget({"latency": f"{share!r}x"}).resolve(PROBLEM)["latency"].max
    assert as_share == pytest.approx(2.0 * share) == pytest.approx(as_factor)


def test_budgets_compare_print_and_survive_json():
    budget = Budget({"latency": "30ms", "params": {"min": 1, "max": "2B"}, "memory": None})
    again = Budget.from_json(json.loads(json.dumps(budget.to_json())))
    assert again == budget != Budget({"latency": "30ms"})
    assert str(budget) == "latency=30ms, params.min=1, params.max=2B"
    assert str(Budget()) == "none"


def test_costs_add_and_print_with_units():
    total = Cost(latency=0.01, memory=2**30) + {"latency": 0.02, "params": 7e9}
    assert total == {"latency": 0.03, "memory": 2**30, "params": 7e9}
    assert str(total) == "latency 30 ms, memory 1 GiB, params 7B params"


@pytest.mark.parametrize("fields", [(0, 1, 1), (1, -1, 1), (1, 0, 0), (1, 1.5, 1), (True, 1, 1)])
def test_a_workload_is_whole_and_not_empty(fields):
    with pytest.raises(UserError, match="workload"):
        Workload(*fields)
