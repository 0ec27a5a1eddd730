from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adaptive.core import Allocation, ChoiceProblem, UserError, Workload, solve

RAGGED = ChoiceProblem(
    loss=[[0, 1, math.inf], [0.5]],
    cost={"latency": [[3, 1, math.nan], [2]], "memory": [[30, 10, 5], [20]]},
    fixed={"memory": 7},
    groups=["first", "second"],
    options=[["full", "half", "gone"], ["only"]],
)


def test_ragged_groups_and_unavailable_options():
    assert (RAGGED.num_groups, RAGGED.num_options) == (2, 3)
    assert RAGGED.available.tolist() == [[True, True, False], [True, False, False]]
    assert RAGGED.total([1, 0]) == {"latency": 3.0, "memory": 37.0}
    assert RAGGED.total_loss([1, 0]) == 1.5
    assert RAGGED.total_loss([2, 0]) == math.inf
    assert RAGGED.reference_cost == {"latency": 5.0, "memory": 57.0}


def test_nan_losses_mean_unavailable():
    problem = ChoiceProblem([[math.nan, 1.0]], {"params": [[1, 2]]})
    assert solve(problem, {}).choice.tolist() == [1]


def test_totals_are_correctly_rounded_in_any_order():
    problem = ChoiceProblem([[0.0]] * 11, {"params": [[1e16]] + [[1.0]] * 10})
    assert problem.total(np.zeros(11))["params"] == 1e16 + 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"loss": []}, "loss must be numbers"),
        ({"loss": [[]]}, "loss must be numbers"),
        ({"loss": ["ab"]}, "loss must be numbers"),
        ({"loss": [[-math.inf]]}, "loss holds -inf"),
        ({"loss": [[math.inf]], "groups": ["a"]}, "group 'a' has no available option"),
        ({"loss": [[0]], "groups": ["a", "b"]}, "groups has 2 names for 1 groups"),
        ({"loss": [[0]], "options": ["a", "b"]}, "options has 2 labels for 1 options"),
        ({"loss": [[0, 1], [0]], "options": [["a"], ["b"]]}, "options and loss differ in shape"),
        ({"loss": [[0]], "cost": {"latency": [[1, 2]]}}, "cost.'latency'. and loss differ"),
        ({"loss": [[0, 1], [0]], "cost": {"latency": [[1], [1, 2]]}}, "differ in shape"),
        ({"loss": [[0]], "cost": {"latency": [[math.nan]]}}, "group '0', option '0' is nan"),
        ({"loss": [[0]], "cost": {"latenci": [[1]]}}, "did you mean 'latency'.*RESOURCES.register"),
        ({"loss": [[0]], "cost": {"throughput": [[1]]}}, "does not add up.*give latency"),
        ({"loss": [[0]], "fixed": {"memory": 1}}, "fixed.memory has no costs beside it"),
        ({"loss": [[0]], "cost": {"memory": [[1]]}, "fixed": {"memory": math.inf}}, "not finite"),
        ({"loss": [[0]], "reference": [1]}, "index that is not an option"),
        ({"loss": [[0]], "reference": [0, 0]}, "needs 1 option indices"),
    ],
)
def test_what_does_not_fit_is_said(arguments, said):
    with pytest.raises(UserError, match=said):
        ChoiceProblem(**{"cost": {}, **arguments})


@pytest.mark.parametrize("choice", [[0.5, 0], [-1, 0], [0, 1], [0]])
def test_choices_are_checked(choice):
    with pytest.raises(UserError, match="choice"):
        RAGGED.total(choice)


numbers = st.floats(-1e12, 1e12) | st.sampled_from([1e-300, 5e-324, 0.1, 1e300])


@given(data=st.data(), shared=st.booleans())
def test_json_restores_problems_exactly(data, shared):
    G, K = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    draw = hnp.arrays(np.float64, (G, K), elements=numbers)
    loss, latency, memory = data.draw(draw), data.draw(draw), data.draw(draw)
    loss[0, 1:], latency[0, 1:] = math.inf, math.nan
    lengths = [K] * G if shared else [data.draw(st.integers(1, K)) for _ in range(G)]
    problem = ChoiceProblem(
        [row[:n] for row, n in zip(loss, lengths, strict=True)],
        {
            "latency": [row[:n] for row, n in zip(latency, lengths, strict=True)],
            "memory": [row[:n] for row, n in zip(memory, lengths, strict=True)],
        },
        fixed={"memory": data.draw(numbers)},
        reference=[n - 1 for n in lengths],
        workload=data.draw(st.none() | st.just(Workload(2, 3, 4))),
    )
    text = json.dumps(problem.to_json(), allow_nan=False)
    again = ChoiceProblem.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    np.testing.assert_array_equal(again.loss, problem.loss)
    for name in problem.cost:
        np.testing.assert_array_equal(again.cost[name], problem.cost[name])
    assert (again.fixed, again.groups, again.options) == (
        problem.fixed,
        problem.groups,
        problem.options,
    )
    assert (again.reference.tolist(), again.workload) == (
        problem.reference.tolist(),
        problem.workload,
    )


def test_json_restores_allocations_exactly():
    allocation = solve(RAGGED, {"latency": 4})
    assert allocation.labels() == ["half", "only"]
    again = Allocation.from_json(json.loads(json.dumps(allocation.to_json(), allow_nan=False)))
    assert again.to_json() == allocation.to_json()
    assert again.choice.tolist() == [1, 0] and again.labels() == ["half", "only"]
    assert RAGGED.total(again) == again.cost
    assert "latency 3 s" in repr(again)
