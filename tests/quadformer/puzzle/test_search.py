"""One budget, three answers: each the best of its kind, and both together never the worse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive.core import ChoiceProblem, InfeasibleError, UserError
from adaptive.quadformer.puzzle.costs import Costs
from adaptive.quadformer.puzzle.problems import absolute, part_of, problem_at, untouched
from adaptive.quadformer.puzzle.score import Scores
from adaptive.quadformer.puzzle.search import (
    Answer,
    answers,
    baseline_choices,
    best_by_tokens,
    frontiers,
)
from adaptive.quadformer.puzzle.settings import SearchConfig, SpaceConfig
from adaptive.quadformer.puzzle.space import search_space

SPACE = search_space([[2, 16], [2, 16]], SpaceConfig(heads=[0.5], mlp=[0.5], multiple=8))
GRID = (16, 28, 64)
CONFIG = SearchConfig(gap=0.0, solver="exhaustive")


def made(
    seed: int, isotonic: bool = False, grid: tuple[int, ...] = GRID
) -> dict[int, ChoiceProblem]:
    """Problems of random scores; prices rise with tokens and sizes, some scores are negative."""
    chance = np.random.default_rng(seed)
    problems = {}
    for tokens in grid:
        values = [[0.0, *chance.normal(0.2, 0.3, len(g.sizes) - 1)] for g in SPACE]
        base = 0.0 if tokens == grid[-1] else float(chance.uniform(0, 0.5))
        scores = Scores(tokens, 8, {"kl": base, "accuracy": 1.0}, {"kl": values})
        seconds = [[tokens * size / group.sizes[0] for size in group.sizes] for group in SPACE]
        params = [list(group.sizes) for group in SPACE]
        costs = Costs(tokens, 1.1 * (2 + 4 * tokens), 2.0, seconds, params)
        problems[tokens] = problem_at(SPACE, scores, costs, "kl", isotonic)
    return problems


def everything(problems: dict[int, ChoiceProblem], limit: float, **fixed) -> float:
    """The least loss of all choices within a latency, by trying them."""
    best = np.inf
    for tokens, problem in problems.items():
        if tokens < fixed.get("least", 0):
            continue
        lengths = [1 if fixed.get("own") else len(options) for options in problem.options]
        for choice in itertools.product(*map(range, lengths)):
            if problem.total(choice)["latency"] <= limit * (1 + 1e-12):
                best = min(best, problem.total_loss(choice))
    return best


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 1.2))
def test_answers_are_the_best_of_their_kind(seed, share):
    problems = made(seed)
    limit = share * problems[64].reference_cost["latency"]
    found, refused = answers(problems, limit, CONFIG)
    wanted = {
        "joint": everything(problems, limit),
        "tokens": everything(problems, limit, own=True),
        "architecture": everything(problems, limit, least=64),
    }
    for kind, loss in wanted.items():
        if np.isinf(loss):
            assert kind in refused and kind not in found
            continue
        assert found[kind].loss == pytest.approx(loss, abs=1e-9)
        assert found[kind].latency <= limit * (1 + 1e-9)
        assert found["joint"].loss <= found[kind].loss + 1e-12
        problem = problems[found[kind].tokens]
        assert problem.total_loss([0, *found[kind].choice]) == pytest.approx(loss)
    if "tokens" in found:
        assert found["tokens"].choice == [0] * len(SPACE)
    if "architecture" in found:
        assert found["architecture"].tokens == 64


def test_what_misses_its_promise_is_searched_again_and_the_joint_answer_keeps_the_best():
    """Slim blocks take twice as long as promised, so tokens alone are what is left of both."""
    problems = made(1)
    limit = 0.5 * problems[64].reference_cost["latency"]

    def measure(tokens, choice):
        factor = 2.0 if np.any(choice) else 1.0
        return factor * problems[tokens].total([0, *choice])["latency"]

    found, _ = answers(problems, limit, SearchConfig(gap=0.0, tighten=3), measure)
    assert found["tokens"].measured <= limit
    met = [a for a in found.values() if a.measured is None or a.measured <= limit * 1.003]
    assert found["joint"] in met
    assert found["joint"].loss == min(answer.loss for answer in met)


@pytest.mark.parametrize("seed", range(3))
def test_a_number_of_tokens_that_takes_longer_than_promised_gives_way_to_another(seed):
    problems = made(seed)
    limit = 0.5 * problems[64].reference_cost["latency"]
    unchecked = answers(problems, limit, CONFIG)[0]["joint"]

    def measure(tokens, choice):
        factor = 1e3 if tokens == unchecked.tokens else 1.0
        return factor * problems[tokens].total([0, *choice])["latency"]

    found = answers(problems, limit, SearchConfig(gap=0.0), measure)[0]["joint"]
    others = {n: problem for n, problem in problems.items() if n != unchecked.tokens}
    assert found.loss == pytest.approx(everything(others, limit))
    assert found.measured <= limit * 1.003


@pytest.mark.parametrize("seed", range(3))
def test_numbers_of_tokens_are_tried_until_one_keeps_the_budget(seed):
    """However many that promise less loss turn out too slow."""
    problems = made(seed, grid=(16, 20, 24, 28, 32, 36, 64))
    limit = 0.3 * problems[64].reference_cost["latency"]
    rows = [row for row in best_by_tokens(problems, limit, CONFIG) if row["least"] is not None]
    last = max(rows, key=lambda row: row["least"])
    assert len(rows) > 5

    def measure(tokens, choice):
        factor = 1.0 if tokens == last["tokens"] else 1e3
        return factor * problems[tokens].total([0, *choice])["latency"]

    found = answers(problems, limit, SearchConfig(gap=0.0), measure)[0]["joint"]
    assert found.tokens == last["tokens"] and found.loss == pytest.approx(last["least"])


def test_where_both_together_are_too_slow_tokens_alone_are_the_answer():
    """Every slim choice takes a thousand times as long, and each number of tokens asks for one."""
    problems = made(1)
    limit = 0.5 * problems[64].reference_cost["latency"]

    def measure(tokens, choice):
        factor = 1e3 if np.any(choice) else 1.0
        return factor * problems[tokens].total([0, *choice])["latency"]

    for tokens, problem in problems.items():
        own = problem.total_loss([0] * 5)
        assert everything({tokens: problem}, limit) < own
    found, refused = answers(problems, limit, SearchConfig(gap=0.0), measure)
    assert found["joint"] == found["tokens"] and found["tokens"].measured <= limit
    assert set(found) == {"joint", "tokens"} and set(refused) == {"architecture"}


def test_what_is_too_slow_when_timed_is_told_by_the_limit_that_was_asked_for():
    problems = made(1)

    def measure(tokens, choice):
        return 1e3 * problems[tokens].total([0, *choice])["latency"] + 5000

    with pytest.raises(InfeasibleError) as error:
        answers(problems, 70.0, SearchConfig(gap=0.0), measure)
    assert "or more when timed, and 70 s are allowed; allow more" in str(error.value)
    assert error.value.limit == 70.0 and error.value.reachable > 5000


def test_a_budget_out_of_reach_names_what_can_be_had():
    with pytest.raises(
        InfeasibleError, match="budget.latency: the least latency in reach is 2.201 s, and"
    ):
        answers(made(0), 0.5, CONFIG)


def test_prices_add_up_to_the_measured_parent_and_tokens_are_a_group():
    problems = made(2)
    for tokens, problem in problems.items():
        assert problem.reference_cost["latency"] == pytest.approx(1.1 * (2 + 4 * tokens))
        assert problem.groups[0] == "tokens" and problem.options[0] == (f"{tokens} tokens",)
    none = [0, *(len(group.sizes) - 1 for group in SPACE)]
    assert problems[16].total(none)["latency"] == pytest.approx(1.1 * 2)


def test_repaired_ladders_do_not_fall():
    for problem in made(3, isotonic=True).values():
        for row, options in list(zip(problem.loss, problem.options, strict=True))[1:]:
            values = row[: len(options)]
            assert values[0] == 0 and (np.diff(values) >= 0).all()


def test_untouched_leaves_the_parent_alone():
    problem = untouched(made(4)[28])
    assert problem.available.sum() == len(SPACE) + 1 and problem.available[:, 0].all()
    part = part_of(problem, [1, 3])
    assert part.groups == ("block 0 attention", "block 1 attention")
    assert part.options[0] == ("2 heads", "1 heads", "none") and part.available.sum() == 2


def test_budgets_are_of_the_full_grid():
    problems = made(5)
    whole = problems[64].reference_cost["latency"]
    assert absolute("0.5x", problems) == pytest.approx(0.5 * whole)
    assert absolute("2x", problems) == pytest.approx(0.5 * whole)
    assert absolute("4ms", problems) == pytest.approx(4e-3)
    with pytest.raises(UserError, match="budget.latency=>=60% asks for no less than a latency"):
        absolute(">=60%", problems)


def test_what_each_number_of_tokens_leaves_tells_the_joint_answer():
    problems = made(8)
    limit = 0.4 * problems[64].reference_cost["latency"]
    rows = {row["tokens"]: row for row in best_by_tokens(problems, limit, CONFIG)}
    joint = answers(problems, limit, CONFIG)[0]["joint"]
    assert min(row["least"] for row in rows.values()) == pytest.approx(joint.loss)
    for tokens, row in rows.items():
        assert row["least"] == pytest.approx(everything({tokens: problems[tokens]}, limit))
        assert row["base"] == problems[tokens].total_loss([0] * 5)
    assert [row["least"] for row in best_by_tokens(problems, 1e-3, CONFIG)] == [None] * 3


def test_frontiers_never_cross():
    found = frontiers(made(6), SearchConfig(gap=0.0))
    best = {row["share"]: row["loss"] for row in found["joint"]}
    assert len(best) == 7
    for kind in ("tokens", "architecture"):
        assert found[kind]
        for row in found[kind]:
            assert best[row["share"]] <= row["loss"] + 1e-9
    losses = [row["loss"] for row in found["joint"]]
    assert losses == sorted(losses, reverse=True)


def test_baselines_spend_the_same_budget():
    problems = made(7)
    limit = 0.6 * problems[64].reference_cost["latency"]
    found = baseline_choices(problems[64], limit, ["greedy", "random", "marginal"], seed=0)
    best = everything({64: problems[64]}, limit)
    for answer in found.values():
        assert isinstance(answer, Answer) and answer.tokens == 64
        assert best - 1e-9 <= answer.loss and answer.latency <= limit * (1 + 1e-9)
    assert baseline_choices(problems[64], 1e-3, ["greedy"], seed=0) == {"greedy": None}
