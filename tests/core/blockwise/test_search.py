"""The search keeps its promise: what is measured is within the limit, not what is predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from adaptive.core import Budget, ChoiceProblem, InfeasibleError, Workload, solve
from adaptive.core.blockwise.search import baseline, latency_frontier, search, tighten


@dataclass
class Settings:
    solver: str = "mip"
    gap: float = 0.0
    time_limit: float = 60.0


CONFIG = Settings()


@pytest.fixture
def problem() -> ChoiceProblem:
    rng = np.random.default_rng(1)
    latency = np.sort(rng.random((8, 6)), axis=1)[:, ::-1] * 1e-3
    loss = np.sort(rng.random((8, 6)), axis=1)
    loss[:, 0] = 0
    return ChoiceProblem(
        loss,
        {"latency": latency, "memory": latency * 1e9},
        fixed={"latency": 1e-4},
        workload=Workload(4, 100, 0),
    )


class Device:
    """A device on which everything takes ``factor`` times as long as predicted."""

    def __init__(self, problems: dict[int, ChoiceProblem], factor: float):
        self.problems, self.factor = problems, factor
        self.asked: list[int] = []

    def __call__(self, batch: int, choice: np.ndarray) -> float:
        self.asked.append(batch)
        return self.factor * self.problems[batch].total(choice)["latency"]


def test_a_kept_promise_is_asked_for_once(problem):
    device = Device({4: problem}, 1.0)
    found = search({4: problem}, Budget({"latency": "1.5x"}), CONFIG, device)
    assert device.asked == [4] and len(found.promises) == 1
    assert found.limits == found.budget
    wanted = solve(problem, Budget({"latency": "1.5x"}), gap=0.0)
    assert found.allocation.loss == wanted.loss


@pytest.mark.parametrize("factor", [1.02, 1.2])
def test_a_missed_promise_tightens_the_limit(problem, factor):
    device = Device({4: problem}, factor)
    budget = Budget({"latency": "1.5x", "memory": "95%"})
    found = search({4: problem}, budget, CONFIG, device)
    limit = problem.reference_cost["latency"] / 1.5
    assert len(device.asked) == 2 and len(found.promises) == 2
    first, second = found.promises
    assert first["measured"] > limit >= second["measured"]
    assert first["limit"] == second["limit"] == pytest.approx(limit)
    # It is the best choice that keeps the promise on this device, within the other limits too.
    wanted = solve(problem, Budget({"latency": limit / factor, "memory": "95%"}), gap=0.0)
    assert found.allocation.loss == pytest.approx(wanted.loss)
    assert found.budget == budget and found.limits.resolve(problem)["memory"] == pytest.approx(
        budget.resolve(problem)["memory"]
    )


def test_an_excess_that_clocks_cannot_tell_is_let_pass(problem):
    device = Device({4: problem}, 1.0)
    budget = Budget({"latency": "1.5x"})
    slack = (
        budget.resolve(problem)["latency"].max
        / (search({4: problem}, budget, CONFIG).allocation.cost["latency"])
    )
    device.factor = slack * 1.002
    assert len(search({4: problem}, budget, CONFIG, device).promises) == 1


def test_attempts_are_limited(problem):
    class Slower(Device):
        def __call__(self, batch, choice):
            self.factor *= 1.1  # and slower each time
            return super().__call__(batch, choice)

    device = Slower({4: problem}, 1.0)
    found = search({4: problem}, Budget({"latency": "1.2x"}), CONFIG, device, attempts=2)
    assert len(device.asked) == 3 and len(found.promises) == 3


class Moody(Device):
    """A device on which the first of several choices takes longer than predicted."""

    def __init__(self, problems: dict[int, ChoiceProblem], factors: list[float]):
        super().__init__(problems, 1.0)
        self.factors = factors

    def __call__(self, batch, choice):
        self.factor = self.factors[min(len(self.asked), len(self.factors) - 1)]
        return super().__call__(batch, choice)


def test_a_limit_that_was_tightened_too_much_is_loosened_again(problem):
    """The first choice is a fifth slower than predicted, all others are as predicted."""
    budget = Budget({"latency": "1.5x"})
    limit = budget.resolve(problem)["latency"].max
    once = search({4: problem}, budget, CONFIG, Moody({4: problem}, [1.2, 1.0]), attempts=1)
    assert once.met and once.spare > 0.03
    # Loosened to the limit itself, the first choice would come again: the second is kept.
    device = Moody({4: problem}, [1.2, 1.0])
    found = search({4: problem}, budget, CONFIG, device)
    assert len(device.asked) == 2 and found.allocation.loss == once.allocation.loss
    # The tightened choice is a twentieth slower, so there is a better one between the two.
    device = Moody({4: problem}, [1.2, 1.05, 1.05])
    found = search({4: problem}, budget, CONFIG, device)
    assert len(device.asked) == 3 and found.met and found.promise is found.promises[2]
    wanted = solve(problem, Budget({"latency": limit / 1.05}), gap=0.0)
    assert found.allocation.loss == pytest.approx(wanted.loss)
    assert found.allocation.loss < once.allocation.loss


def test_baselines_are_loosened_as_the_search_is(problem):
    """The search's own limit was tightened by a fifth; the baseline is as fast as predicted."""
    budget = Budget({"latency": "1.5x"})
    found = search({4: problem}, budget, CONFIG, Moody({4: problem}, [1.2, 1.0]), attempts=1)
    tight, _ = baseline("greedy", found, 0)
    device = Moody({4: problem}, [1.0])
    choice, reason = baseline("greedy", found, 0, device)
    assert reason == "" and len(device.asked) > 1
    assert problem.total_loss(choice) < problem.total_loss(tight)
    assert problem.total(choice)["latency"] <= budget.resolve(problem)["latency"].max


def test_a_baseline_that_cannot_keep_to_the_budget_is_none(problem):
    """Measured so slow that nothing is left within the tightened limit."""
    found = search({4: problem}, Budget({"latency": "1.5x"}), CONFIG)
    device = Moody({4: problem}, [40.0])
    choice, reason = baseline("greedy", found, 0, device)
    assert choice is None and "no greedy choice" in reason and len(device.asked) == 1


def test_an_answer_survives_a_limit_out_of_reach(problem):
    """Loosened, then so slow that the next limit is below what any choice takes."""
    device = Moody({4: problem}, [1.2, 1.05, 40.0])
    found = search({4: problem}, Budget({"latency": "1.5x"}), CONFIG, device, attempts=3)
    assert found.met and found.promise is found.promises[1]


def test_what_is_loosened_too_much_is_not_kept(problem):
    device = Moody({4: problem}, [1.2, 1.05, 1.3])
    found = search({4: problem}, Budget({"latency": "1.5x"}), CONFIG, device)
    assert len(found.promises) == 3 and found.promise is found.promises[1] and found.met


def test_without_a_latency_limit_or_a_device_nothing_is_measured(problem):
    device = Device({4: problem}, 9.0)
    found = search({4: problem}, Budget({"memory": "60%"}), CONFIG, device)
    assert device.asked == [] and found.promises == []
    assert search({4: problem}, Budget({"latency": "1.5x"}), CONFIG).promises == []


def test_throughput_is_held_to_its_latency(problem):
    device = Device({4: problem}, 1.1)
    found = search({4: problem}, Budget({"throughput": "1.5x"}), CONFIG, device)
    assert found.promise["measured"] <= problem.reference_cost["latency"] / 1.5


def larger(problem: ChoiceProblem, times: float, gain: float) -> ChoiceProblem:
    """The problem at a larger batch: ``times`` as slow, its losses the same but ``gain``."""
    return ChoiceProblem(
        problem.loss * gain,
        {name: cost * times for name, cost in problem.cost.items()},
        fixed={name: value * times for name, value in problem.fixed.items()},
        workload=Workload(16, 100, 0),
    )


def test_of_several_batch_sizes_the_best_is_kept(problem):
    problems = {4: problem, 16: larger(problem, 3.0, 0.5)}
    device = Device(problems, 1.0)
    found = search(problems, Budget({"latency": "1.5x"}), CONFIG, device)
    assert found.batch == 16 and found.problem is problems[16] and device.asked == [16]


def test_a_miss_at_one_batch_size_does_not_loosen_the_limit_of_another(problem):
    """The tightened limit is absolute. At batch 4 it would let even the parent pass."""
    problems = {4: problem, 16: larger(problem, 3.0, 0.5)}
    device = Device(problems, 1.1)
    found = search(problems, Budget({"latency": "1.5x"}), CONFIG, device, attempts=1)
    limit = found.problem.reference_cost["latency"] / 1.5
    assert device(found.batch, found.allocation.choice) <= limit


def test_a_budget_out_of_reach_names_what_can_be_had(problem):
    with pytest.raises(InfeasibleError, match=r"budget\.latency=100x") as caught:
        search({4: problem}, Budget({"latency": "100x"}), CONFIG)
    least = problem.total(np.full(8, 5))["latency"]
    assert caught.value.reachable == pytest.approx(least)


def test_tighten_keeps_other_limits(problem):
    budget = Budget({"latency": "1.5x", "memory": {"min": "10%", "max": "60%"}})
    limits = tighten(budget, problem, 1e-3).resolve(problem)
    assert limits["latency"].max == 1e-3
    assert limits["memory"] == pytest.approx(budget.resolve(problem)["memory"])


# --- baselines at the budget of the search ---


@pytest.mark.parametrize("name", ["uniform", "greedy", "random"])
def test_baselines_are_held_to_what_is_measured(problem, name):
    device = Device({4: problem}, 1.1)
    budget = Budget({"latency": "1.5x"})
    found = search({4: problem}, budget, CONFIG, device)
    choice, reason = baseline(name, found, 0, device)
    assert reason == ""
    assert device(4, choice) <= budget.resolve(problem)["latency"].max * 1.003
    assert problem.total_loss(choice) >= found.allocation.loss - 1e-12


def test_a_baseline_that_cannot_meet_the_budget_says_so():
    """Uniform: a in both layers is too slow, b in both too large."""
    problem = ChoiceProblem(
        [[0, 1], [0, 1]], {"latency": [[2, 1], [2, 1]], "memory": [[1, 2], [1, 2]]}
    )
    found = search({1: problem}, Budget({"latency": 3, "memory": 3}), CONFIG)
    choice, reason = baseline("uniform", found, 0)
    assert choice is None
    assert reason == "no uniform choice from this library meets the budget (latency=3, memory=3)"


# --- frontier ---


def test_the_frontier_rises_as_latency_falls(problem):
    parts = [0.5, 0.9, 0.7]
    rows = latency_frontier(problem, parts, CONFIG, Budget({"latency": "1.1x", "memory": "99%"}))
    assert not any(row["reason"] for row in rows)
    reference = problem.reference_cost["latency"]
    for part, row in zip(sorted(parts), rows, strict=True):
        assert row["latency"] <= part * reference
        assert row["speedup"] == pytest.approx(reference / row["latency"])
        assert row["bound"] <= row["loss"] + 1e-12 and row["price"] >= 0
    losses = [row["loss"] for row in rows]
    assert losses == sorted(losses, reverse=True)


def test_points_out_of_reach_say_why(problem):
    rows = latency_frontier(problem, [0.001, 0.9], CONFIG, Budget({"latency": "1.5x"}))
    assert "loss" not in rows[0] and rows[0]["reason"]
    assert "loss" in rows[1]
