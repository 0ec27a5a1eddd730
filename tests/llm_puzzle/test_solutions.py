"""Diverse solutions: how they differ, and which one is kept."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core import Budget, ChoiceProblem
from adaptive.core.blockwise.search import Found, min_differences, search
from adaptive.llm_puzzle.settings import SearchConfig
from adaptive.llm_puzzle.solutions import best, diverse, table

CONFIG = SearchConfig(gap=0.0)
BUDGET = Budget({"latency": "60%"})


@pytest.fixture
def problem() -> ChoiceProblem:
    rng = np.random.default_rng(4)
    loss, latency = rng.random((5, 4)), np.sort(rng.random((5, 4)), axis=1)[:, ::-1]
    loss[:, 0] = 0
    return ChoiceProblem(loss, {"latency": latency})


@given(st.integers(1, 100), st.integers(0, 20))
def test_the_share_is_kept_to_the_layer(layers, twentieths):
    problem = ChoiceProblem(
        [[0, 1]] * layers + [[0]] * 3, {"latency": [[1, 0]] * layers + [[1]] * 3}
    )
    least = min_differences(problem, twentieths / 20)
    assert 1 <= least <= layers
    # Exact arithmetic: shared <= alpha * layers, and one more would be too many.
    assert 20 * (layers - least) <= twentieths * layers or twentieths == 20
    assert least == 1 or 20 * (layers - least + 1) > twentieths * layers


@pytest.mark.parametrize("diversity", [0.8, 0.4])
@pytest.mark.parametrize("solver", ["mip", "lagrangian"])
def test_every_solution_is_the_best_that_differs_enough(problem, diversity, solver):
    config = replace(CONFIG, diversity=diversity, solver=solver)

    def find(exclude):
        return search({1: problem}, BUDGET, config, exclude=exclude, diversity=config.diversity)

    found, shortage = diverse(find, 3)
    assert len(found) == 3 and shortage == ""
    limit, earlier = 0.6 * problem.reference_cost["latency"], []
    for solution in found:
        losses = [
            problem.total_loss(choice)
            for choice in map(np.array, itertools.product(range(4), repeat=5))
            if problem.total(choice)["latency"] <= limit
            and all((choice == other).sum() <= diversity * 5 + 1e-9 for other in earlier)
        ]
        assert solution.allocation.loss == pytest.approx(min(losses))
        earlier.append(solution.allocation.choice)


def test_where_there_are_no_more_the_reason_is_told():
    problem = ChoiceProblem([[0, 1], [0, 1]], {"latency": [[2, 1], [2, 1]]})
    config = replace(CONFIG, diversity=0.0)
    found, shortage = diverse(
        lambda exclude: search(
            {1: problem},
            Budget({"latency": 4}),
            config,
            exclude=exclude,
            diversity=config.diversity,
        ),
        3,
    )
    assert [f.allocation.choice.tolist() for f in found] == [[0, 0], [1, 1]]
    assert "min_differences" in shortage and "\n" not in shortage


def solution(problem: ChoiceProblem, choice: list[int], factor: float | None = None) -> Found:
    """The given choice, found within a limit of its own latency and measured ``factor`` as slow."""
    limit = problem.total(choice)["latency"]
    found = search({1: problem}, Budget({"latency": limit * 1.001}), CONFIG)
    if factor is None:
        return found
    promise = {"predicted": limit, "measured": factor * limit, "limit": limit}
    return replace(found, promises=[promise], promise=promise)


def test_the_best_within_the_budget_is_kept(problem):
    kept, missed = solution(problem, [1] * 5, 0.99), solution(problem, [2] * 5, 1.1)
    assert best([kept, kept, kept], [0.3, 0.1, 0.2]) == 1
    assert best([kept, missed, kept], [0.3, 0.1, 0.2]) == 2  # the best misses the promise
    assert best([missed, missed], [0.3, 0.1]) == 1  # none keeps it
    assert best([kept, kept], [math.nan, 5.0]) == 1
    assert best([kept, missed], [math.nan, 5.0]) == 0
    # Nothing was measured: the budget has no latency limit.
    assert best([solution(problem, [1] * 5)], [0.3]) == 0


def test_the_table_says_what_was_predicted_and_measured(problem):
    found = [solution(problem, [1] * 5, 0.99), solution(problem, [2] * 5, 1.1)]
    rows = table(found, [0.3, 0.1], base=2.0)
    assert rows[0]["shared"] is None
    shared = (found[0].allocation.choice == found[1].allocation.choice).sum()
    assert rows[1]["shared"] == shared
    assert rows[0]["loss.predicted"] == pytest.approx(2.0 + found[0].allocation.loss)
    assert [row["met"] for row in rows] == [True, False]
    assert rows[1]["latency.measured"] == found[1].promises[-1]["measured"]
    assert [row["kl"] for row in rows] == [0.3, 0.1]
