"""Baselines: feasible, and what their descriptions say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small_problems import Case, cases

from adaptive.core import Budget, ChoiceProblem, UserError, solve
from adaptive.core.blockwise.baselines import BASELINES, feasible


@pytest.mark.parametrize("name", BASELINES)
@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(case=cases(exclude=False), seed=st.integers(0, 3))
def test_whatever_is_returned_is_feasible(name, case: Case, seed):
    assume(name != "max_params" or "params" in case.cost)
    choice = BASELINES[name](case.problem, case.budget, seed)
    if choice is None:
        return
    assert case.allowed(choice) and np.isfinite(case.problem.total_loss(choice))
    assert case.problem.total_loss(choice) >= case.optimum() - 1e-9
    again = BASELINES[name](case.problem, case.budget, seed)
    assert np.array_equal(choice, again)


@given(cases(exclude=False))
def test_feasible_is_what_it_says(case: Case):
    lengths = [range(len(labels)) for labels in case.problem.options]
    for choice in itertools.product(*lengths):
        available = np.isfinite(case.problem.total_loss(choice))
        assert feasible(case.problem, case.budget, np.array(choice)) == (
            available and case.allowed(choice)
        )


@st.composite
def rectangles(draw) -> tuple[list, dict, dict]:
    """Losses, costs and limits; the same options in every group, some of them not available."""
    G, K = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    numbers = st.lists(st.lists(st.integers(0, 9), min_size=K, max_size=K), min_size=G, max_size=G)
    loss = [[float(x) for x in row] for row in draw(numbers)]
    for row in loss:
        if K > 1 and draw(st.booleans()):
            row[draw(st.integers(1, K - 1))] = float("nan")
    names = ("latency", "memory")
    cost = {name: draw(numbers) for name in names}
    return loss, cost, {name: draw(st.integers(0, 40)) for name in names}


@given(rectangles())
def test_uniform_is_the_best_of_all_uniform_choices(drawn):
    loss, cost, limits = drawn
    problem, budget = ChoiceProblem(loss, cost), Budget(limits)
    choices = [np.full(problem.num_groups, k) for k in range(problem.num_options)]
    losses = [problem.total_loss(c) for c in choices if feasible(problem, budget, c)]
    found = BASELINES["uniform"](problem, budget, 0)
    if not losses:
        assert found is None
    else:
        assert len(set(found.tolist())) == 1 and feasible(problem, budget, found)
        assert problem.total_loss(found) == min(losses)


def test_uniform_leaves_layers_that_are_not_searched_alone():
    problem = ChoiceProblem(
        [[0, 1, 5], [0], [0, 2, 1]],
        {"latency": [[4, 2, 1], [4], [4, 2, 1]]},
        options=[["a", "b", "c"], ["a"], ["a", "b", "c"]],
    )
    assert BASELINES["uniform"](problem, Budget({"latency": 8}), 0).tolist() == [1, 0, 1]
    assert BASELINES["uniform"](problem, Budget({"latency": 7}), 0).tolist() == [2, 0, 2]
    assert BASELINES["uniform"](problem, Budget({"latency": 5}), 0) is None


def test_greedy_by_hand():
    """Mean scores 2, 1, 3: group 1 is first, then 0, then 2.

    Budget 13 with 1 fixed leaves 12, so 4 each. Group 1 may spend 4: its best option within is
    b (2). 10 left, 5 each: group 0 takes b (5). 5 left for group 2: a costs 6, so c (4).
    """
    problem = ChoiceProblem(
        [[0, 1, 5], [0, 1, 2], [0, 6, 3]],
        {"latency": [[6, 5, 1], [6, 2, 1], [6, 5, 4]]},
        fixed={"latency": 1},
    )
    assert BASELINES["greedy"](problem, Budget({"latency": 13}), 0).tolist() == [1, 1, 2]
    # The optimum spends more where it counts: groups 0 and 2 keep a, group 1 makes room.
    assert solve(problem, Budget({"latency": 15}), gap=0).choice.tolist() == [0, 1, 0]


def test_greedy_takes_the_cheapest_where_its_share_is_too_small_and_may_fail():
    """Share of 2 each: no option of group 0 fits, it takes its cheapest (3) and leaves 1."""
    problem = ChoiceProblem([[0, 1], [5, 6]], {"latency": [[4, 3], [4, 1]]})
    assert BASELINES["greedy"](problem, Budget({"latency": 4}), 0).tolist() == [1, 1]
    assert BASELINES["greedy"](problem, Budget({"latency": 3}), 0) is None


def test_greedy_without_a_limit_keeps_the_best():
    problem = ChoiceProblem([[0, 1], [3, 2]], {"latency": [[2, 1], [2, 1]]})
    assert BASELINES["greedy"](problem, Budget({}), 0).tolist() == [0, 1]


def test_marginal_by_hand():
    """Parent 6 + 6 + 6 = 18, limit 12. Loss per unit saved, from the parent:

    group 0: b 1/1, c 5/5. Group 1: b 1/4, c 2/5. Group 2: b 6/1, c 3/2. First group 1 takes b (14).
    Two more are needed: savings beyond them do not count, so group 0's c costs 5/2, its b 1/1,
    group 1's c 1/1, group 2's c 3/2. The first of the cheapest is group 0's b (13). One more:
    group 1's c (1/1) beats group 0's c (4/1) and group 2's c (3/1).
    """
    problem = ChoiceProblem(
        [[0, 1, 5], [0, 1, 2], [0, 6, 3]],
        {"latency": [[6, 5, 1], [6, 2, 1], [6, 5, 4]]},
    )
    found = [
        BASELINES["marginal"](problem, Budget({"latency": limit}), 0).tolist()
        for limit in (18, 14, 13, 12)
    ]
    assert found == [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 2, 0]]
    assert BASELINES["marginal"](problem, Budget({"latency": 5}), 0) is None


def test_marginal_takes_what_is_free_first_and_weighs_what_is_exceeded():
    """Group 0's b is better than the parent; memory has room, so its saving buys nothing."""
    problem = ChoiceProblem(
        [[0, -1], [0, 1], [0, 0.9]],
        {"latency": [[4, 3], [4, 3], [4, 4]], "memory": [[4, 4], [4, 4], [4, 1]]},
    )
    budget = Budget({"latency": 11, "memory": 100})
    assert BASELINES["marginal"](problem, budget, 0).tolist() == [1, 0, 0]
    budget = Budget({"latency": 10, "memory": 100})
    assert BASELINES["marginal"](problem, budget, 0).tolist() == [1, 1, 0]


def test_marginal_comes_close_to_the_optimum_on_a_block_library():
    """Within 0.4 % on NVIDIA's library of 80 x 54; here on convex ladders with noise."""
    rng = np.random.default_rng(3)
    share_K = np.array([1.0, 0.87, 0.75, 0.5, 0.25, 0.1, 0.0])
    latency = np.outer(rng.uniform(0.8, 1.2, 40), share_K)
    loss = np.outer(rng.lognormal(0, 1, 40), (1 - share_K) ** 2) * rng.uniform(0.9, 1.1, (40, 7))
    problem = ChoiceProblem(loss, {"latency": latency})
    budget = Budget({"latency": "60%"})
    optimum = solve(problem, budget, gap=0).loss
    ours, theirs = (
        problem.total_loss(BASELINES[name](problem, budget, 0)) for name in ("marginal", "greedy")
    )
    assert optimum <= ours <= 1.02 * optimum < theirs


def test_max_params_keeps_the_most_parameters():
    """Latency 6 allows the parent's group (4) with c (2), or b with b: 10 + 1 against 7 + 5."""
    problem = ChoiceProblem(
        [[0, 9, 1], [0, 9, 1]],
        {"latency": [[4, 3, 2], [4, 3, 2]], "params": [[10, 7, 1], [10, 5, 1]]},
    )
    assert BASELINES["max_params"](problem, Budget({"latency": 6}), 0).tolist() == [1, 1]
    assert BASELINES["max_params"](problem, Budget({"latency": 8}), 0).tolist() == [0, 0]
    assert BASELINES["max_params"](problem, Budget({"latency": 3}), 0) is None


@given(cases(exclude=False))
def test_no_allowed_choice_has_more_params_than_max_params(case: Case):
    assume("params" in case.cost)
    choice = BASELINES["max_params"](case.problem, case.budget, 0)
    sizes = [case.problem.total(c)["params"] for c in case.choices() if case.allowed(c)]
    assert (choice is None) == (not sizes)
    if sizes:
        assert case.problem.total(choice)["params"] == max(sizes)


def test_max_params_without_params_is_refused():
    problem = ChoiceProblem([[0, 1]], {"latency": [[2, 1]]})
    with pytest.raises(UserError, match="max_params needs params"):
        BASELINES["max_params"](problem, Budget({"latency": 2}), 0)


def test_random_spends_the_budget_and_follows_the_seed():
    rng = np.random.default_rng(0)
    latency = np.sort(rng.integers(1, 100, (12, 6)), axis=1)[:, ::-1]
    problem = ChoiceProblem(rng.random((12, 6)), {"latency": latency})
    budget = Budget({"latency": "60%"})
    limit = budget.resolve(problem)["latency"].max
    found = [BASELINES["random"](problem, budget, seed) for seed in range(8)]
    assert len({tuple(choice) for choice in found}) == 8
    assert all(problem.total(choice)["latency"] > 0.97 * limit for choice in found)


def test_an_unknown_baseline_is_named():
    with pytest.raises(UserError, match="unknown baseline 'gredy'.*did you mean 'greedy'"):
        BASELINES["gredy"]
